//! Replacement of the questions of operators in a build without them: the type has no values.

use std::convert::Infallible;

use crate::control::Refused;

/// A question or a command of an operator.
#[derive(Debug)]
pub struct Question(Infallible);

impl Question {
    /// Answers a question that is not accepted.
    pub fn refuse(self, _refused: Refused) {
        match self.0 {}
    }
}
