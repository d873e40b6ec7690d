//! Who the spool's sender is, over its restarts: the file `producer`, replaced as a whole at each start.

use serde::{Deserialize, Serialize};
use shared::sender::ProducerId;

use super::{
    error::SpoolError,
    files::{Files, Replacing, replace},
    log::number,
};

/// The file.
const NAME: &str = "producer";

/// The file that is locked.
pub(super) const LOCK: &str = "lock";

/// The format of everything in the directory.
const FORMAT: u32 = 1;

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    /// The same at every start.
    pub(super) id: ProducerId,
    /// One more at every start, so that the relay takes nothing any more of a start before.
    pub(super) epoch: u32,
}

#[derive(Serialize, Deserialize)]
struct Record {
    format: u32,
    producer: String,
    epoch: u32,
}

/// Only this of it is the same in all formats.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

/// Reads who the sender is, or makes it up the first time.
pub(super) fn read(files: &impl Files, fresh: [u8; 16]) -> Result<Identity, SpoolError> {
    let names = files.list()?;
    if !names.iter().any(|name| name == NAME) {
        if let Some(segment) = names.iter().find(|name| number(name).is_some()) {
            return Err(SpoolError::damaged(segment, 0, format!("the file {NAME} is missing beside it")));
        }
        let known = [LOCK, &format!("{NAME}.new")];
        return match names.iter().all(|name| known.contains(&name.as_str())) {
            true => Ok(Identity { id: ProducerId(fresh), epoch: 0 }),
            false => Err(SpoolError::Foreign),
        };
    }
    let bad = || SpoolError::damaged(NAME, 0, "it does not say who the sender is");
    let text = files.read(NAME)?;
    let Format { format } = serde_json::from_slice(&text).map_err(|_| bad())?;
    if format > FORMAT {
        return Err(SpoolError::Newer(format));
    }
    let Record { producer, epoch, .. } = serde_json::from_slice(&text).map_err(|_| bad())?;
    let number = Some(&producer).filter(|digits| digits.len() == 32);
    let number = number.and_then(|digits| u128::from_str_radix(digits, 16).ok()).ok_or_else(bad)?;
    Ok(Identity { id: ProducerId(number.to_be_bytes()), epoch })
}

/// The identity of this start, once it is on disk.
pub(super) fn begin(files: &mut impl Files, before: Identity) -> Result<Identity, SpoolError> {
    let spent = || SpoolError::damaged(NAME, 0, "it was started too often");
    let epoch = before.epoch.checked_add(1).ok_or_else(spent)?;
    let producer = format!("{:032x}", u128::from_be_bytes(before.id.0));
    let mut text =
        serde_json::to_vec(&Record { format: FORMAT, producer, epoch }).map_err(std::io::Error::from)?;
    text.push(b'\n');
    replace(files, NAME, &text, Replacing::Durable)?;
    Ok(Identity { epoch, ..before })
}
