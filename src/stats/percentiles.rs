//! A histogram as a `.hgrm` file, the percentile distribution that HdrHistogram's plotters read.

use std::io::{self, Write};

use hdrhistogram::Histogram;

/// Lines for each halving of what is left to 100 percent.
const TICKS_PER_HALF: u32 = 5;

/// Nanoseconds in the unit of the file, microseconds.
const NS_PER_UNIT: f64 = 1_000.0;

/// Writes the percentile distribution in microseconds.
pub fn write(histogram: &Histogram<u64>, to: &mut impl Write) -> io::Result<()> {
    writeln!(
        to,
        "{:>12} {:>14} {:>10} {:>14}\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    )?;
    let mut seen = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        seen += step.count_since_last_iteration();
        let (value, quantile) =
            (step.value_iterated_to() as f64 / NS_PER_UNIT, step.quantile_iterated_to());
        write!(to, "{value:12.3} {quantile:14.12} {seen:10}")?;
        // The last one would be infinite, and the plotters know it by its absence.
        match quantile < 1.0 {
            true => writeln!(to, " {:14.2}", 1.0 / (1.0 - quantile))?,
            false => writeln!(to)?,
        }
    }
    let unit = |ns: f64| ns / NS_PER_UNIT;
    writeln!(
        to,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]",
        unit(histogram.mean()),
        unit(histogram.stdev())
    )?;
    writeln!(
        to,
        "#[Max     = {:12.3}, Total count    = {:12}]",
        unit(histogram.max() as f64),
        histogram.len()
    )?;
    writeln!(
        to,
        "#[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.buckets(),
        2 * 10_u32.pow(u32::from(histogram.sigfig())).next_power_of_two()
    )
}
