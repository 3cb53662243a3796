//! What the cluster's end says about its cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What the developer's end must know to tell the cluster's names and addresses from others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterConfig {
    /// The cluster's DNS domain, without dots at its ends; empty where there is none.
    pub domain: String,
    /// The search list of the pod.
    pub search: Vec<String>,
    /// Names with fewer dots are looked up in the search list first.
    pub ndots: usize,
    /// Ranges of the cluster's addresses; empty: not known.
    #[serde(serialize_with = "as_texts", deserialize_with = "of_texts")]
    pub ranges: Vec<IpNet>,
}

impl ClusterConfig {
    /// Is this an address of the cluster, as far as its ranges are known?
    pub fn contains(&self, address: IpAddr) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.any(|range| range.contains(&address))
    }
}

fn as_texts<S: Serializer>(ranges: &[IpNet], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ranges.iter().map(ToString::to_string))
}

fn of_texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    let ranges = texts
        .iter()
        .map(|text| text.parse().map_err(D::Error::custom));
    ranges.collect()
}
