//! Credentials that can be renewed while requests run.
//!
//! Promises that every request begun after [`CredentialsCell::set`] returned is signed with the new ones, and that nothing prints
//! them. Does not know where they come from nor when they expire: whoever owns them renews them in time.

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

#[derive(Default)]
struct State {
    generation: u64,
    credential: Option<Arc<AwsCredential>>,
}

/// A place for credentials; clones share it.
#[derive(Clone, Default)]
pub struct CredentialsCell(Arc<RwLock<State>>);

/// No credentials were handed in yet.
#[derive(Debug, thiserror::Error)]
#[error("no credentials for the store; name a credentials file or a secret")]
pub(super) struct NoCredentials;

impl CredentialsCell {
    /// A cell that holds these from the start.
    #[must_use]
    pub fn new(access_key_id: impl Into<String>, secret_access_key: impl Into<String>, session_token: Option<String>) -> Self {
        let cell = Self::default();
        cell.set(access_key_id, secret_access_key, session_token);
        cell
    }

    /// Replaces what it holds; running jobs go on with the new ones.
    pub fn set(&self, access_key_id: impl Into<String>, secret_access_key: impl Into<String>, session_token: Option<String>) {
        let credential =
            AwsCredential { key_id: access_key_id.into(), secret_key: secret_access_key.into(), token: session_token };
        let mut state = self.0.write().unwrap_or_else(PoisonError::into_inner);
        state.generation += 1;
        state.credential = Some(Arc::new(credential));
    }

    /// Grows with each renewal.
    pub(super) fn generation(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).generation
    }
}

impl fmt::Debug for CredentialsCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsCell").field("generation", &self.generation()).finish_non_exhaustive()
    }
}

#[async_trait]
impl CredentialProvider for CredentialsCell {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let credential = self.0.read().unwrap_or_else(PoisonError::into_inner).credential.clone();
        credential.ok_or_else(|| object_store::Error::Generic { store: "S3", source: Box::new(NoCredentials) })
    }
}
