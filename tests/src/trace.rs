//! The readings of a serial sensor: what the tests send. One is made here, always the same; the one of a real
//! sensor is used as well where it is.

use std::path::Path;

/// Readings as a device writes them: CRLF behind each but the last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Where it comes from.
    pub name: &'static str,
    /// What the device wrote.
    pub bytes: Vec<u8>,
    /// What it meant.
    pub readings: Vec<String>,
}

/// 7 500 readings like `1184.000`, a random walk from a fixed seed.
pub fn trace() -> Trace {
    let mut random = fastrand::Rng::with_seed(1184);
    let mut value = 1184;
    let readings: Vec<String> = (0..7500)
        .map(|_| {
            value = (value + 16 * random.i32(-1..=1)).clamp(0, 4096);
            format!("{value}.000")
        })
        .collect();
    Trace { name: "made", bytes: readings.join("\r\n").into_bytes(), readings }
}

/// The trace above, and the one of a real sensor where it lies beside this repository.
pub fn traces() -> Vec<Trace> {
    let real = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/sensor-trace.csv");
    let real = std::fs::read_to_string(real).ok().map(|text| Trace {
        name: "real",
        readings: text.split("\r\n").map(str::to_owned).collect(),
        bytes: text.into_bytes(),
    });
    [trace()].into_iter().chain(real).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trace_is_readings_between_crlf() {
        for Trace { name, bytes, readings } in traces() {
            assert!(readings.len() >= 7_499, "{name}");
            assert!(
                readings.iter().all(|r| r.ends_with(".000") && r.len() >= 5 && !r.contains('\n')),
                "{name}"
            );
            assert_eq!(bytes, readings.join("\r\n").as_bytes(), "{name}");
        }
    }

    #[test]
    fn the_made_trace_is_always_the_same() {
        assert_eq!(trace(), trace());
        assert_eq!(trace().readings.len(), 7500);
    }
}
