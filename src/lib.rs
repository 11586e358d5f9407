pub mod domain;
pub mod clock;
