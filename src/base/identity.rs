//! Whom a client's certificate names.

use crate::base::clock::Deadline;

/// Whom a client's certificate names. It has been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// Common Name of its subject.
    pub common_name: Option<Box<str>>,
    /// Its Subject Alternative Names, in its order.
    pub alternative_names: Vec<AlternativeName>,
    /// The one of them that the listener takes for the client's name, if any.
    pub name: Option<Box<str>>,
    /// Until when the certificate is valid; none where that is not known. Its client may not stay for
    /// longer.
    pub valid_until: Option<Deadline>,
}

/// A Subject Alternative Name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    /// A host name.
    Dns(Box<str>),
    /// An electronic mail address.
    Email(Box<str>),
    /// A URI.
    Uri(Box<str>),
}
