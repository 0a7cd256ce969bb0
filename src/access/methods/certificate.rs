//! Clients with a certificate, or vouched for by a proxy: the name in the certificate is the user name.

use std::sync::Arc;

use super::{Known, Method, Step};
use crate::access::password_file::Passwords;
use crate::config::Access;
use crate::engine::Credentials;

struct Certificate;

/// None if names in certificates are not used.
pub(super) fn open(access: &Access) -> Option<Arc<dyn Method>> {
    access.certificate_names.then(|| Arc::new(Certificate) as _)
}

impl Method for Certificate {
    fn begin(&self, who: &Credentials<'_>, _: &Arc<Passwords>) -> Option<Step> {
        let name = who.certificate?.name.clone()?;
        Some(Step::Granted(Known::user(name), Vec::new()))
    }
}
