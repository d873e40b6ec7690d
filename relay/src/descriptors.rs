//! How many connections the system's limit on open files leaves room for.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are no connections: standard streams, listeners, the runtime's own.
const RESERVED: u64 = 32;

/// Raises the soft limit on open files to the hard one, and gives how many of `wanted` connections fit it.
pub fn connections_within_limit(wanted: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // Where raising is not allowed, the limit stays what it was.
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let limit = if raised { maximum } else { current };
    let room = limit.map_or(u64::MAX, |limit| limit.saturating_sub(RESERVED).max(1));
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX))
}
