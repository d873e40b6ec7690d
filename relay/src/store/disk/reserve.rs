//! A file that holds room: on a full disk it is given up, since to free space a checkpoint has to be written first.

use std::io;

use super::volume::Volume;

const NAME: &str = "reserve";

/// Bytes that are held at least.
const LEAST: usize = 256 * 1024;

/// Holds room for two checkpoints of so many bytes. Where there is no more it can't be helped now, and what was held still
/// is.
pub(super) fn keep(volume: &dyn Volume, checkpoint: usize) {
    let wanted = LEAST.max(2 * checkpoint);
    let grow = || -> io::Result<()> {
        let blob = volume.open(NAME).or_else(|_| volume.create(NAME))?;
        let held = usize::try_from(blob.len()?).unwrap_or(usize::MAX);
        if held < wanted {
            blob.write_at(&vec![0; wanted - held], held as u64)?;
            blob.sync()?;
        }
        Ok(())
    };
    let _ = grow();
}

/// Gives up what is held; whether anything was.
fn give_up(volume: &dyn Volume) -> bool {
    volume.remove(NAME).is_ok()
}

/// Does something that needs room on the disk; where there is none, from what is held.
pub(super) fn with<T>(volume: &dyn Volume, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    match act() {
        Err(error) if error.kind() == io::ErrorKind::StorageFull && give_up(volume) => act(),
        outcome => outcome,
    }
}
