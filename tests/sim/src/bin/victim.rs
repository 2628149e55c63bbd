//! A whole process that does one job of the engine on a real folder: what the rows *kill* and *resume* kill.
//!
//! `victim FOLDER WORKERS TASK…`: says what it did when it is done, and nothing before; ends with 1 when the engine says no.

use longshore_sim::real::jobs::{Manner, Task, run};
use longshore_sim::real::place::Place;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let workers = arguments.get(1).and_then(|text| text.parse().ok());
    let (Some(folder), Some(workers), Some(task)) = (arguments.first(), workers, arguments.get(2..).and_then(Task::of)) else {
        return ExitCode::from(2);
    };
    match run(&Place(folder.into()), &task, Manner { workers, days: 0 }) {
        Ok(told) => {
            let said = std::io::stdout().write_all(told.text().as_bytes());
            ExitCode::from(u8::from(said.is_err()))
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}
