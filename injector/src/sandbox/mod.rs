//! Everything on this machine without a cluster: Envoy, a demo service and the relay.
