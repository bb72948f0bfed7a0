//! The core of pail beside two actor libraries, and beside a tokio task with a channel, in one run.
//!
//! ```sh
//! cargo bench --bench core                        all of it, from within benches/core
//! cargo bench --bench core -- 'by name/get'       one operation
//! ```

use core_bench::{Contender, Op, by_hand::ByHand, kameo::Kameo, pail, pail::Pail, ractor::Ractor};
use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};

/// What is linked into pail. All contenders have it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Buckets that die at once, as benches/beam.exs has it.
const DEATHS: u64 = 200_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    // One after the other, so that none has the threads of another beside it.
    contend::<Pail>(&mut criterion);
    contend::<Ractor>(&mut criterion);
    contend::<Kameo>(&mut criterion);
    contend::<ByHand>(&mut criterion);
    many_deaths(&mut criterion);
    criterion.final_summary();
}

fn contend<C: Contender>(criterion: &mut Criterion) {
    let contender = C::start();
    for (op, name) in Op::ALL {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        group.bench_function(C::NAME, |bencher| bencher.iter_custom(|times| contender.time(op, times)));
        group.finish();
    }
}

fn many_deaths(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("kill and DOWN of 200,000");
    group.throughput(Throughput::Elements(DEATHS)).sample_size(10).sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::from_parameter(Pail::NAME), |bencher| {
        bencher.iter_custom(|times| (0..times).map(|_| pail::kill_and_down(DEATHS)).sum());
    });
    group.finish();
}
