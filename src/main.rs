//! The thin binary: parse arguments, run the command, turn its result into an exit code.

fn main() -> std::process::ExitCode {
    tidegate::cli::main()
}
