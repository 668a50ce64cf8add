# Common commands; `just` lists them. See CONTRIBUTING.md.

_default:
    @just --list

# Compile the library, examples, tests and benchmarks
check:
    cargo check --all-features --all-targets

# Format, and run the lints that a change has to pass
lint:
    cargo fmt
    cargo clippy --all-features --all-targets -- -D warnings

# Run the tests that need only Rust
test *arguments:
    cargo test --all-features {{ arguments }}

# Install what the tests need, and run all tests, or one: just test-all --test azurite NAME
test-all *arguments:
    tests/run.sh {{ arguments }}

# Run all checks that a change has to pass
ci:
    .ci/run

# Build the API documentation, with the guides
doc:
    cargo doc --no-deps --all-features --open

# Check each feature alone
features:
    for feature in azure dicom dicomweb fs http object_store postgres redb restate testing; do \
        cargo clippy --lib --no-default-features --features $feature -- -D warnings || exit 1; \
    done

# Export a small archive to a folder under target/
quickstart:
    cargo run --example quickstart

# Measure the engine alone
bench:
    cargo bench --features testing --bench engine

# Compare with other tools
peers *arguments:
    benches/peers.sh {{ arguments }}
