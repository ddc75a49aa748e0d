//! Configuration held against the real oslo.config.
