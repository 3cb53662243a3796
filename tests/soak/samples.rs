//! Samples memory and descriptors of processes, and detects growth.
//!
//! Fits a line to all samples, with its standard error.

use std::net::SocketAddr;
use std::time::Duration;

use harness::client::{Ask, Client};

/// A process whose memory and descriptors are sampled.
#[derive(Debug, Clone)]
pub struct Watched {
    /// The name in the report.
    pub what: String,
    /// Its process id.
    pub process: u32,
    /// Where Envoy reports how many bytes its allocator has given out: an address and a path.
    ///
    /// The value ends the last line.
    pub allocated: Option<(SocketAddr, &'static str)>,
}

impl Watched {
    /// A process other than Envoy.
    pub fn plain(what: impl Into<String>, process: u32) -> Self {
        Self {
            what: what.into(),
            process,
            allocated: None,
        }
    }

    async fn allocated_kib(&self) -> Option<f64> {
        let (addr, path) = self.allocated?;
        let answer = Client::h1(addr).ask(Ask::get(path)).await.ok()?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let bytes: f64 = text.split_whitespace().last()?.parse().ok()?;
        Some(bytes / 1_024.0)
    }
}

/// The samples of one process.
#[derive(Debug)]
pub struct Series {
    /// The name in the report.
    pub what: String,
    process: u32,
    points: Vec<Point>,
}

/// One sample.
#[derive(Debug, Clone, Copy)]
struct Point {
    at: Duration,
    memory_kib: f64,
    allocated_kib: Option<f64>,
    descriptors: f64,
    cpu: Duration,
}

/// A line fitted to samples.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// The growth per hour.
    pub slope: f64,
    /// The standard error of the growth.
    pub error: f64,
    /// The mean of all samples.
    pub mean: f64,
    /// The smallest and the largest sample.
    pub range: (f64, f64),
}

/// With less time than this, growth cannot be judged.
pub const ENOUGH: Duration = Duration::from_secs(8 * 60);

impl Fit {
    /// Fits by least squares.
    ///
    /// Consecutive samples are correlated, so their effective number is reduced by their lag-1 correlation.
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        if points.len() < 12 {
            return None;
        }
        let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
        let (x_mean, y_mean) = (mean(|point| point.0), mean(|point| point.1));
        let xx: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
        let xy: f64 = points
            .iter()
            .map(|(x, y)| (x - x_mean) * (y - y_mean))
            .sum();
        let slope = xy / xx;
        let residuals: Vec<f64> = points
            .iter()
            .map(|(x, y)| y - y_mean - slope * (x - x_mean))
            .collect();
        let squares: f64 = residuals.iter().map(|residual| residual.powi(2)).sum();
        let neighbours: f64 = residuals.windows(2).map(|pair| pair[0] * pair[1]).sum();
        let alike = if squares > 0.0 {
            (neighbours / squares).clamp(0.0, 0.99)
        } else {
            0.0
        };
        let effective = (count * (1.0 - alike) / (1.0 + alike)).max(3.0);
        let variance = squares / count * effective / (effective - 2.0);
        let error = (variance / (xx / count * effective)).sqrt();
        let values = || points.iter().map(|point| point.1);
        Some(Self {
            slope,
            error,
            mean: y_mean,
            range: (
                values().fold(f64::INFINITY, f64::min),
                values().fold(f64::NEG_INFINITY, f64::max),
            ),
        })
    }

    /// Is the growth more than three standard errors, and more than `floor` an hour?
    pub fn grows(&self, floor: f64) -> bool {
        self.slope > 3.0 * self.error && self.slope > floor
    }
}

/// The results for one process.
#[derive(Debug)]
pub struct Summary {
    pub what: String,
    /// All samples for other evaluations: seconds since the start, memory in KiB, descriptors.
    pub points: Vec<(u64, f64, f64)>,
    pub samples: usize,
    /// Resident memory.
    pub memory_kib: Fit,
    /// Memory given out by Envoy's allocator, which keeps freed memory.
    ///
    /// Resident memory follows the peak load, not current use.
    pub allocated_kib: Option<Fit>,
    pub descriptors: Fit,
    /// Percent of one core.
    pub cpu_percent: f64,
}

/// What Envoy itself may keep per change, in KiB.
///
/// Of the filter's configuration in two workers, which `envoy_budgets` limits to 1 200 bytes, and of the upstream cluster that comes or goes with it.
const ENVOY_KEEPS_KIB: f64 = 1_600.0 / 1_024.0;

impl Summary {
    /// Does memory use grow by more than a hundredth an hour?
    ///
    /// And by more than what Envoy keeps of this many changes an hour.
    ///
    /// Or does Envoy's resident memory grow by more than a tenth?
    pub fn memory_grows(&self, changes: f64) -> bool {
        match &self.allocated_kib {
            None => self.memory_kib.grows(self.memory_kib.mean / 100.0),
            Some(allocated) => {
                let kept = ENVOY_KEEPS_KIB * changes;
                allocated.grows(kept.max(allocated.mean / 100.0))
                    || self.memory_kib.grows(self.memory_kib.mean / 10.0)
            }
        }
    }

    /// Does the number of descriptors grow by one an hour or more?
    pub fn descriptors_grow(&self) -> bool {
        self.descriptors.grows(1.0)
    }
}

/// The samples of all processes.
#[derive(Debug, Default)]
pub struct Samples(Vec<Series>);

impl Samples {
    /// Samples these processes.
    ///
    /// Leaves out one that has ended; another process under an old name starts over.
    pub async fn take(&mut self, at: Duration, watched: &[Watched]) {
        for one in watched {
            let allocated_kib = one.allocated_kib().await;
            let Some(point) = look(one.process, at) else {
                continue;
            };
            let point = Point {
                allocated_kib,
                ..point
            };
            let known =
                |series: &&mut Series| series.what == one.what && series.process == one.process;
            match self.0.iter_mut().find(known) {
                Some(series) => series.points.push(point),
                None => self.0.push(Series {
                    what: one.what.clone(),
                    process: one.process,
                    points: vec![point],
                }),
            }
        }
    }

    /// Summarizes processes that were running from `warm` to the end.
    pub fn summaries(&self, warm: Duration) -> Vec<Summary> {
        let last = self.0.iter().filter_map(|one| one.points.last());
        let Some(end) = last.map(|point| point.at).max() else {
            return Vec::new();
        };
        let whole = self.0.iter().filter(|one| {
            let (first, last) = (one.points.first(), one.points.last());
            first.is_some_and(|first| first.at <= warm) && last.is_some_and(|last| last.at == end)
        });
        whole.filter_map(|one| summarize(one, warm)).collect()
    }
}

fn summarize(series: &Series, warm: Duration) -> Option<Summary> {
    let points: Vec<&Point> = series
        .points
        .iter()
        .filter(|point| point.at >= warm)
        .collect();
    let fit = |value: fn(&Point) -> Option<f64>| {
        let all = points.iter();
        let all = all.filter_map(|point| Some((point.at.as_secs_f64() / 3_600.0, value(point)?)));
        Fit::of(&all.collect::<Vec<_>>())
    };
    let (first, last) = (points.first()?, points.last()?);
    let time = last.at.saturating_sub(first.at).as_secs_f64();
    let all = series.points.iter();
    let all = all.map(|point| (point.at.as_secs(), point.memory_kib, point.descriptors));
    Some(Summary {
        what: series.what.clone(),
        points: all.collect(),
        samples: points.len(),
        memory_kib: fit(|point| Some(point.memory_kib))?,
        allocated_kib: fit(|point| point.allocated_kib),
        descriptors: fit(|point| Some(point.descriptors))?,
        cpu_percent: 100.0 * last.cpu.saturating_sub(first.cpu).as_secs_f64() / time,
    })
}

fn look(process: u32, at: Duration) -> Option<Point> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // proc(5): user and system time, in hundredths of a second, are the 12th and 13th field after the name in parentheses.
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Point {
        at,
        memory_kib: line.split_whitespace().next()?.parse().ok()?,
        allocated_kib: None,
        descriptors: descriptors.count() as f64,
        cpu: Duration::from_millis(ticks * 10),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An hour of samples, five seconds apart, with noise of a fixed sequence without a trend.
    fn hour(value: impl Fn(f64, f64) -> f64) -> Fit {
        let mut seed = 1_u64;
        let points: Vec<(f64, f64)> = (0..720)
            .map(|number| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let noise = (seed >> 40) as f64 / (1_u64 << 24) as f64 - 0.5;
                let x = f64::from(number) / 720.0;
                (x, value(x, noise))
            })
            .collect();
        Fit::of(&points).expect("enough samples")
    }

    #[test]
    fn a_slope_is_found_in_noise() {
        let fit = hour(|x, noise| 1_000.0 + 50.0 * x + 100.0 * noise);
        assert!((fit.slope - 50.0).abs() < 3.0 * fit.error, "{fit:?}");
        assert!(fit.grows(10.0), "{fit:?}");
        assert!(!fit.grows(100.0), "{fit:?}");
    }

    #[test]
    fn noise_without_a_slope_does_not_grow() {
        let fit = hour(|_, noise| 1_000.0 + 100.0 * noise);
        assert!(!fit.grows(0.0), "{fit:?}");
        assert_eq!(hour(|_, _| 7.0).slope, 0.0);
    }

    #[test]
    fn slow_waves_do_not_grow() {
        let fit = hour(|x, noise| 1_000.0 + 100.0 * (x * 9.0).sin() + noise);
        assert!(!fit.grows(0.0), "{fit:?}");
    }
}
