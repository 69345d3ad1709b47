//! Backups of a cluster's state.

use std::time::Duration;

use bytes::Bytes;
use prism_api::RestoreView;

use crate::stream::ByteStream;
use crate::transport::Call;
use crate::url::Target;
use crate::{Client, Result};

/// How long a server may take to copy its state, or to restore one, on top of the client's timeout.
const LONG: Duration = Duration::from_secs(3600);

impl Client {
    /// A backup, as it comes. It says of itself whether it is whole.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn backup(&self) -> Result<ByteStream> {
        let call = Call::post(Target::new("/api/v1/cluster/backup")).patient(LONG);
        let response = self.send(call).await?;
        Ok(ByteStream::new(self.clone(), response))
    }

    /// Sends a piece of a backup that begins at a byte of it; after the last one, with `more` false, it is restored.
    ///
    /// # Errors
    /// As the server says, or when it cannot be reached.
    pub async fn restore(&self, offset: u64, piece: Bytes, more: bool) -> Result<RestoreView> {
        let target = Target::new("/api/v1/cluster/restore")
            .query("offset", offset)
            .query("more", more);
        let mut call = Call::post(target)
            .raw(piece, "application/octet-stream")
            .patient(LONG);
        // The last one is not known to have been carried out when its answer is lost.
        call.repeatable = more;
        self.answer(call).await
    }
}
