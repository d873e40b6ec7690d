//! The command line of the bench.

use std::{net::SocketAddr, num::NonZero};

use clap::{Args, Parser, Subcommand};

/// Measure the relay and its peers side by side
///
/// The server runs on core 0, the load on core 1. All servers do a work once, then the next work; that is a round.
/// Without options everything is measured and docs/performance.md made anew; with some only tables are printed.
#[derive(Debug, Parser)]
#[command(name = "tests/bench", args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) measure: Measure,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Do every work once, as small as can be: whether the bench works, not what it measures
    Smoke,
    /// Make docs/performance.md anew from what was measured last
    Report,
    /// List works and servers
    List,
    /// Measure the gateway beside other proxies; tests/gateway-bench sets up what it needs
    #[command(args_conflicts_with_subcommands = true)]
    Gateway {
        #[command(subcommand)]
        command: Option<PartCommand>,
        /// How often each proxy does each work
        #[arg(default_value = "5")]
        rounds: NonZero<u32>,
        /// Length of each run, in seconds; the first quarter is not measured
        #[arg(default_value = "4")]
        seconds: f64,
        #[command(flatten)]
        choice: Choice,
    },
    /// Measure what is kept on disk beside JetStream; tests/durable-bench sets up what it needs
    #[command(args_conflicts_with_subcommands = true)]
    Durable {
        #[command(subcommand)]
        command: Option<PartCommand>,
        /// How often each server does each work
        #[arg(default_value = "5")]
        rounds: NonZero<u32>,
        /// Length of each run, in seconds; the first quarter is not measured
        #[arg(default_value = "4")]
        seconds: f64,
        /// Works whose name begins so; repeatable, or with commas [default: all]
        #[arg(long = "work", value_name = "NAME", value_delimiter = ',')]
        works: Vec<String>,
    },
    /// Serve as the reference `bare send`
    #[command(hide = true)]
    BareSend { address: SocketAddr },
    /// Proxy as the reference `bare sockets`
    #[command(hide = true)]
    BareSockets { address: SocketAddr, upstream: SocketAddr },
}

/// What else may be done with the benches of the gateway and of what is kept on disk.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum PartCommand {
    /// Do every work once, as small as can be: whether the bench works, not what it measures
    Smoke,
    /// Put what was measured last into docs/performance.md
    Report,
}

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct Measure {
    #[command(flatten)]
    pub(crate) choice: Choice,

    /// How often each server does each work
    #[arg(long, value_name = "N", default_value = "5")]
    pub(crate) rounds: NonZero<u32>,

    /// Length of each run, in seconds; the first quarter is not measured
    #[arg(long, value_name = "S", default_value = "4")]
    pub(crate) seconds: f64,
}

/// Which works, and of which servers.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Choice {
    /// Works whose name begins so; repeatable, or with commas [default: all]
    #[arg(long = "work", value_name = "NAME", value_delimiter = ',')]
    pub(crate) works: Vec<String>,

    /// Servers whose name begins so; repeatable, or with commas [default: all]
    #[arg(long = "server", value_name = "NAME", value_delimiter = ',')]
    pub(crate) servers: Vec<String>,
}

impl Choice {
    /// Whether nothing is left out, so that the document may be made of it.
    pub(crate) fn is_everything(&self) -> bool {
        self.works.is_empty() && self.servers.is_empty()
    }
}

/// Whether a name was chosen.
pub(crate) fn chosen(choice: &[String], name: &str) -> bool {
    choice.is_empty() || choice.iter().any(|begin| name.to_lowercase().starts_with(&begin.to_lowercase()))
}
