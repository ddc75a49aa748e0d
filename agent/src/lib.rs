//! What runs inside an instance. It dials the gateway that it was told of, fetches packages, and runs sandboxes that
//! speak the AWS Lambda Runtime API. It knows nothing of OpenStack, of stores or of projects other than its own.

pub mod wire;
