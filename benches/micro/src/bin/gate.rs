//! Runs one kernel, or the whole engine, once, so that its instructions can be counted.
//!
//! `gate --list` names what there is; `gate NAME` makes the input and then does the work once, inside [`measured`], which is where
//! callgrind is told to count. Promises one thread. benches/volume knows nothing of it; benches/gate.py calls it.

use longshore_micro::Result;
use longshore_micro::kernels::{KERNELS, Work};
use longshore_micro::whole::WHOLE;
use std::io::Write;

/// What is counted: callgrind is told this name.
#[inline(never)]
fn measured(work: &mut Work) -> Result<u64> {
    work()
}

fn main() -> Result<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    if wanted == "--list" {
        for kernel in KERNELS.iter().chain(WHOLE) {
            writeln!(out, "{}", kernel.name)?;
        }
        return Ok(());
    }
    let Some(kernel) = KERNELS.iter().chain(WHOLE).find(|k| k.name == wanted) else {
        return Err(format!("no such kernel: {wanted}; `gate --list` names them").into());
    };
    let mut work = (kernel.make)()?;
    writeln!(out, "{}", measured(&mut work)?)?;
    Ok(())
}
