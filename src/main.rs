//! The command line.

use anyhow::Context;
use clap::{Parser, Subcommand};
use hookgate::app::Launch;
use hookgate::auth;
use hookgate::check::Report;
use hookgate::config::Config;
use hookgate::descriptors;
use hookgate::dumpable;
use hookgate::health;
use hookgate::ids::{OrganizationId, UserId};
use hookgate::printable::printable;
use hookgate::settings::Fault;
use hookgate::text_file::Stamp;
use hookgate::workers::Ended;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong usage or configuration.
const EXIT_CONFIGURATION: u8 = 2;

/// Webhook ingress for workflow engines that run on BullMQ.
#[derive(Parser)]
#[command(version = hookgate::BUILD, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the service
    Serve(ConfigArgument),
    /// Reads and validates the configuration and prints every fault
    Check {
        #[command(flatten)]
        config: ConfigArgument,
        /// Also looks at MongoDB and Redis and says what is there
        #[arg(long)]
        connect: bool,
        /// Prints one JSON document
        #[arg(long)]
        json: bool,
    },
    /// Asks a running service on this machine whether it lives (/livez); exit code 0 or 1
    Health {
        /// Of its admin port; by default as the environment sets admin.listen, else 127.0.0.1:9464
        #[arg(long, value_name = "IP:PORT")]
        address: Option<SocketAddr>,
    },
    /// Mints a token with the first configured secret, for trying things out
    Token {
        #[command(flatten)]
        config: ConfigArgument,
        /// The organization that the token speaks for
        #[arg(long)]
        organization: String,
        /// The user that the token speaks for
        #[arg(long)]
        user: String,
        /// How long the token is valid
        #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
        ttl: Duration,
    },
}

#[derive(clap::Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(
        long,
        env = "HOOKGATE_CONFIG",
        default_value = "config/hookgate.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
}

fn main() -> ExitCode {
    panic::set_hook(Box::new(say_panic));
    // A panic is already logged; the exit code reports it as a failure.
    panic::catch_unwind(run).unwrap_or(ExitCode::FAILURE)
}

fn run() -> ExitCode {
    // Before any secret is read.
    if let Err(error) = dumpable::make_dumpable(false) {
        say_error(format_args!("cannot disable core dumps and debugger access: {error}"));
    }
    let outcome = match Arguments::parse().command {
        Command::Serve(argument) => serve(&argument),
        Command::Check { config, connect, json } => check(&config.config, connect, json),
        Command::Health { address } => ask_health(address),
        Command::Token { config, organization, user, ttl } => {
            token(&config, &organization, &user, ttl)
        }
    };
    outcome.unwrap_or_else(|error| {
        say_error(format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn serve(argument: &ConfigArgument) -> anyhow::Result<ExitCode> {
    let (launch, config) = match Launch::new()?.load(&argument.config) {
        Some(Ok(loaded)) => loaded,
        Some(Err(faults)) => return Ok(refuse(argument, faults)),
        None => {
            say_error(format_args!("stopped before the configuration was read"));
            return Ok(ExitCode::SUCCESS);
        }
    };
    if config.telemetry.dumpable {
        dumpable::make_dumpable(true)?;
    }
    let log = config.telemetry.start()?;
    let stamp = config.stamp.as_ref();
    let (modified, sha256) = (stamp.and_then(Stamp::modified), stamp.and_then(Stamp::sha256));
    let file = argument.config.display();
    tracing::info!(version = hookgate::BUILD, config = %file, modified, sha256, "hookgate starts");
    Ok(match launch.run(config, argument.config.clone(), log)? {
        Ended::Clean => ExitCode::SUCCESS,
        Ended::CutShort => ExitCode::FAILURE,
    })
}

fn check(path: &Path, connect: bool, json: bool) -> anyhow::Result<ExitCode> {
    let config = Config::load(path);
    let mut report = Report::new(path, &config);
    if let (Ok(config), true) = (&config, connect) {
        descriptors::require(descriptors::TO_BEGIN)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(report.connect(config));
        // A look-up of a name or work on a file may still be under way on a thread of its own; nobody needs it.
        runtime.shutdown_background();
    }
    say(&if json { serde_json::to_string_pretty(&report)? } else { report.to_string() })?;
    Ok(match config {
        Err(_) => ExitCode::from(EXIT_CONFIGURATION),
        Ok(_) if report.is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
    })
}

fn ask_health(address: Option<SocketAddr>) -> anyhow::Result<ExitCode> {
    health::ask(address.unwrap_or_else(|| Config::admin_of_environment().listen))?;
    say("ok")?;
    Ok(ExitCode::SUCCESS)
}

fn token(
    argument: &ConfigArgument,
    organization: &str,
    user: &str,
    ttl: Duration,
) -> anyhow::Result<ExitCode> {
    let config = match load(argument) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    match mint(&config, organization, user, ttl) {
        Ok(token) => {
            say(&token)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            say_error(format_args!("{error:#}"));
            Ok(ExitCode::from(EXIT_CONFIGURATION))
        }
    }
}

fn mint(config: &Config, organization: &str, user: &str, ttl: Duration) -> anyhow::Result<String> {
    let organization = OrganizationId::new(organization).context("--organization")?;
    let user = UserId::new(user).context("--user")?;
    auth::mint(&config.auth.jwt, &user, &organization, ttl)
}

/// The configuration, or what to exit with when its faults have been told.
fn load(argument: &ConfigArgument) -> Result<Config, ExitCode> {
    Config::load(&argument.config).map_err(|faults| refuse(argument, faults))
}

fn refuse(argument: &ConfigArgument, faults: Vec<Fault>) -> ExitCode {
    complain(&Report::new(&argument.config, &Err(faults)).to_string());
    ExitCode::from(EXIT_CONFIGURATION)
}

fn say(text: &str) -> std::io::Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// A panic before there is a log, or without one.
fn say_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    say_error(format_args!("panic at {place}: {}", panic.payload_as_str().unwrap_or_default()));
}

/// One line, whatever it repeats of servers, files and arguments.
fn say_error(error: fmt::Arguments<'_>) {
    complain(&printable(format_args!("hookgate: {error}")));
}

fn complain(text: &str) {
    // There is nowhere left to complain about a closed standard error.
    let _ = writeln!(std::io::stderr(), "{text}");
}
