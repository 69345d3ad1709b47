//! Namespaces on the wire.

use prism_types::{Bytes, MilliCpu, Name, TimeMs};

wire! {
    /// The quota of a namespace, whole; what is left out is not limited.
    #[request]
    pub struct Quota {
        /// Processor time that its tasks and sandboxes may be given at once.
        pub cpu: Option<MilliCpu>,
        /// Memory that they may be given at once.
        pub memory: Option<Bytes>,
        /// Disk that they may be given at once.
        pub disk: Option<Bytes>,
        /// Tasks that may run at once.
        pub instances: Option<u32>,
        /// Sandboxes that may live at once.
        pub sandboxes: Option<u32>,
    }

    /// A quota as answered; `null` is not limited.
    pub struct QuotaView {
        /// Processor time.
        pub cpu: Option<MilliCpu>,
        /// Memory.
        pub memory: Option<Bytes>,
        /// Disk.
        pub disk: Option<Bytes>,
        /// Tasks that run at once.
        pub instances: Option<u32>,
        /// Sandboxes that live at once.
        pub sandboxes: Option<u32>,
    }

    /// What is in use in a namespace.
    pub struct UsageView {
        /// Processor time that is given to tasks and sandboxes.
        pub cpu: MilliCpu,
        /// Memory.
        pub memory: Bytes,
        /// Disk.
        pub disk: Bytes,
        /// Tasks that may run now.
        pub instances: u32,
        /// Sandboxes that are not over.
        pub sandboxes: u32,
        /// Jobs that are not over.
        pub jobs: u32,
    }

    /// A namespace.
    pub struct NamespaceView {
        /// Its name.
        pub name: Name,
        /// What may be used at once.
        pub quota: QuotaView,
        /// What is.
        pub used: UsageView,
        /// When it was made; 0 for `default`, which is always there.
        pub created: TimeMs,
    }
}
