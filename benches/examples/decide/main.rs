//! What a decision costs the core: `make instructions` runs this under valgrind, where it is
//! repeatable, whatever else the machine does.

#![allow(missing_docs, unreachable_pub, reason = "what the macros make is public, and says nothing")]

mod gate;

use avnology_benches::{DECISIONS, SHAPED_DECISIONS};
use gungraun::{Callgrind, Dhat, LibraryBenchmarkConfig, library_benchmark, library_benchmark_group, main};

use gate::{Gate, Kind, Shape};

// A row's name is read by `instructions`: the kind, and the number of routes.
#[library_benchmark(setup = Gate::prepare)]
#[bench::public_10(Kind::Public, 10)]
#[bench::public_10000(Kind::Public, 10_000)]
#[bench::cached_10(Kind::Cached, 10)]
#[bench::cached_10000(Kind::Cached, 10_000)]
#[bench::permitted_10(Kind::Permitted, 10)]
#[bench::permitted_10000(Kind::Permitted, 10_000)]
#[bench::asked_10(Kind::Asked, 10)]
fn decide(mut gate: Gate) -> Gate {
    for number in 0..DECISIONS {
        gate.decide(number);
    }
    // Given back, so that its end is not counted.
    gate
}

// A row's name: the part of the request, the shape, and that there are hardly any routes.
#[library_benchmark(setup = Gate::shaped)]
#[bench::query_plain_1(Shape::QueryPlain)]
#[bench::query_pairs_1(Shape::QueryPairs)]
#[bench::query_plus_1(Shape::QueryPlus)]
#[bench::query_encoded_1(Shape::QueryEncoded)]
#[bench::query_names_1(Shape::QueryNames)]
#[bench::cookies_plain_1(Shape::CookiesPlain)]
#[bench::cookies_pairs_1(Shape::CookiesPairs)]
#[bench::cookies_encoded_1(Shape::CookiesEncoded)]
#[bench::headers_hundred_1(Shape::Headers)]
#[bench::path_plain_1(Shape::PathPlain)]
#[bench::path_segments_1(Shape::PathSegments)]
#[bench::path_encoded_1(Shape::PathEncoded)]
fn decide_shaped(mut gate: Gate) -> Gate {
    for number in 0..SHAPED_DECISIONS {
        gate.decide(number);
    }
    gate
}

library_benchmark_group!(name = decisions, benchmarks = [decide, decide_shaped]);

main!(
    config = LibraryBenchmarkConfig::default()
        .tool(Callgrind::with_args(["--cache-sim=no"]))
        // An allocation belongs to a decision by the frames above it, and the default keeps twelve.
        .tool(Dhat::with_args(["--num-callers=200"])),
    library_benchmark_groups = decisions
);
