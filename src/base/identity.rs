//! The identity in a client certificate.

use crate::base::clock::Deadline;

/// The identity in a client certificate that has been verified.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateIdentity {
    /// Common Name of the subject.
    pub common_name: Option<Box<str>>,
    /// Subject Alternative Names, in the certificate's order.
    pub alternative_names: Vec<AlternativeName>,
    /// The name that the listener uses as the client's name, if any.
    pub name: Option<Box<str>>,
    /// The end of the certificate's validity, if known. The client is disconnected then.
    pub valid_until: Option<Deadline>,
}

/// A Subject Alternative Name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlternativeName {
    /// DNS name.
    Dns(Box<str>),
    /// Email address.
    Email(Box<str>),
    /// URI.
    Uri(Box<str>),
}
