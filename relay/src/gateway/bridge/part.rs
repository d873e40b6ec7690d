//! How a connection to an upstream of bytes ends that the gateway ends, or a side without the other's being told.

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use super::{Bridge, DONE, Stop};
use crate::gateway::{
    counters::{Cause, End, Side},
    farewell::{Farewell, close_frame, drain},
};

/// The upstream did not keep to its framing.
const INTERNAL: u16 = 1011;

impl<C, U> Bridge<C, U>
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    /// Tells those that are still there why it ends.
    pub(super) async fn part(&mut self, stop: Stop) -> End {
        let patience = self.passage.close();
        let told = stop != Stop::Failed(Side::Client) && !self.close_said;
        let last_words = !matches!(stop, Stop::Failed(Side::Upstream));
        let failed = matches!(stop, Stop::Failed(_));
        let of = |farewell: Farewell| (farewell.code(), farewell.text());
        let ((side, cause), (code, text)) = match stop {
            Stop::Ended => ((Side::Client, Cause::Ended), (DONE, String::new())),
            Stop::Failed(side) => ((side, Cause::Failed), of(Farewell::UpstreamFailed)),
            Stop::Ordered(order) => ((Side::Gateway, order.cause()), of(Farewell::Ordered(order))),
            Stop::Halted(side, halt) => (halt.end(side), of(Farewell::Halted(side, halt))),
            Stop::Lost(lost) => ((Side::Upstream, Cause::Misbehaved), (INTERNAL, lost.to_string())),
        };
        if told {
            let mut last = std::mem::take(&mut self.to_client).to_vec();
            last.append(&mut self.control);
            last.extend(close_frame(Some(code), &text, false));
            let tell = async {
                if self.client.write_all(&last).await.is_ok() && self.client.shutdown().await.is_ok() {
                    drain(&mut self.client).await;
                }
            };
            let _ = timeout(patience, tell).await;
        }
        let finish = async {
            let rest = std::mem::take(&mut self.to_upstream);
            if last_words && self.upstream.write_all(&rest).await.is_err() {
                return;
            }
            let _ = self.upstream.shutdown().await;
        };
        let _ = timeout(patience, finish).await;
        match self.ended {
            // After the end of one side the other may fail without harm.
            Some(ended) if failed => ended,
            _ => End { side, cause, close_code: told.then_some(code) },
        }
    }
}
