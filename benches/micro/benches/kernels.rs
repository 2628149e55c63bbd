//! Times each kernel, and the whole engine on one thread, by criterion.
//!
//! `cargo bench -p longshore-micro -- cut` takes those whose name holds `cut`. Does not judge: times differ from machine to machine; what
//! a commit costs is judged by counted instructions (benches/gate.py).

#![expect(clippy::unwrap_used, reason = "a benchmark may fail loudly")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use longshore_micro::kernels::{Amount, KERNELS};
use longshore_micro::whole::WHOLE;
use std::time::Duration;

fn kernels(criterion: &mut Criterion) {
    for kernel in KERNELS.iter().chain(WHOLE) {
        let (group, case) = kernel.name.split_once('/').unwrap();
        let mut group = criterion.benchmark_group(group);
        group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
        group.throughput(match kernel.amount {
            Amount::Bytes(n) => Throughput::Bytes(n),
            Amount::Items(n) => Throughput::Elements(n),
        });
        let mut work = None;
        group.bench_function(case, |b| {
            let work = work.get_or_insert_with(|| (kernel.make)().unwrap());
            b.iter(|| work().unwrap());
        });
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
