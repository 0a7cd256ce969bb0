//! A picture of a run: latency by percentile, and throughput over time.

use std::path::Path;

use plotters::prelude::*;

use crate::{
    error::{Error, Result},
    outcome::{Outcome, Traffic},
    recorder::TIMELINE_STEP_NS,
};

const SIZE: (u32, u32) = (1_000, 800);
const CURVE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);

/// Writes the picture to `path`.
pub fn write(path: &Path, title: &str, outcome: &Outcome) -> Result<()> {
    let Some(traffic) = &outcome.traffic else {
        return Err(Error::Usage("there is no picture of idle connections".into()));
    };
    let mut text = String::new();
    let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
    let failed = |error: &dyn std::error::Error| {
        Error::io("draw a picture", std::io::Error::other(error.to_string()))
    };
    let unit = outcome.workload.scenario.unit();
    draw(&area, title, unit, traffic).map_err(|error| failed(error.as_ref()))?;
    area.present().map_err(|error| failed(&error))?;
    drop(area);
    std::fs::write(path, text)
        .map_err(|source| Error::io(format!("write {}", path.display()), source))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(area: &Area<'_>, title: &str, unit: (&str, &str), traffic: &Traffic) -> Drawn {
    area.fill(&WHITE)?;
    let area = area.titled(title, ("sans-serif", 22))?;
    let (above, below) = area.split_vertically(SIZE.1 / 2);
    draw_percentiles(&above, unit.0, traffic)?;
    draw_throughput(&below, unit.1, traffic)
}

/// The axis spreads percentiles by rarity: 90%, 99%, 99.9% at equal distances.
fn draw_percentiles(area: &Area<'_>, unit: &str, traffic: &Traffic) -> Drawn {
    let distribution = &traffic.distribution;
    // Rarer values than one in all of them were not measured.
    let decades = (distribution.count().max(10) as f64).log10().clamp(1.0, 6.0);
    let points: Vec<(f64, f64)> = (0..=400)
        .map(|step| decades * f64::from(step) / 400.0)
        .map(|rarity| (rarity, distribution.quantile_us(1.0 - 10f64.powf(-rarity)).max(1.0)))
        .collect();
    let last = points.last().expect("there are some").1;
    let first = points[0].1;
    let (low, high) = (10f64.powf(first.log10().floor()), 10f64.powf(last.log10().ceil()));
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(45)
        .y_label_area_size(75)
        .build_cartesian_2d(0.0..decades, (low..high.max(low * 10.0)).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(("sans-serif", 15))
        .x_labels(decades.ceil() as usize + 1)
        .x_label_formatter(&|rarity| percentile_name(*rarity))
        .y_label_formatter(&|us| duration_name(*us))
        .x_desc(format!("percentile of time to {unit}"))
        .y_desc("at most")
        .draw()?;
    chart.draw_series(LineSeries::new(points, CURVE.stroke_width(2)))?;
    Ok(())
}

fn draw_throughput(area: &Area<'_>, units: &str, traffic: &Traffic) -> Drawn {
    let step_s = TIMELINE_STEP_NS as f64 / 1e9;
    let rates: Vec<(f64, f64)> =
        traffic.rates().enumerate().map(|(step, rate)| (step as f64 * step_s, rate)).collect();
    let high = rates.iter().map(|&(_, rate)| rate).fold(1.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(45)
        .y_label_area_size(75)
        .build_cartesian_2d(0.0..(rates.len().max(1) as f64 * step_s), 0.0..high)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(("sans-serif", 15))
        .x_desc("seconds")
        .y_desc(format!("{units} a second"))
        .y_label_formatter(&|rate| count_name(*rate))
        .draw()?;
    // Each tenth of a second as a step.
    let steps = rates.iter().flat_map(|&(at_s, rate)| [(at_s, rate), (at_s + step_s, rate)]);
    chart.draw_series(LineSeries::new(steps, CURVE.stroke_width(2)))?;
    Ok(())
}

fn percentile_name(rarity: f64) -> String {
    let digits = (rarity - 2.0).ceil().max(0.0) as usize;
    format!("{:.digits$}%", 100.0 * (1.0 - 10f64.powf(-rarity)))
}

fn duration_name(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} µs"),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    }
}

fn count_name(count: f64) -> String {
    match count {
        count if count < 1e4 => format!("{count:.0}"),
        count if count < 1e6 => format!("{:.0} k", count / 1e3),
        count => format!("{:.1} M", count / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_labelled_for_people() {
        assert_eq!(percentile_name(0.0), "0%");
        assert_eq!(percentile_name(2.0), "99%");
        assert_eq!(percentile_name(3.0), "99.9%");
        assert_eq!((duration_name(100.0), duration_name(2e4)), ("100 µs".into(), "20 ms".into()));
        assert_eq!((count_name(900.0), count_name(2.5e6)), ("900".into(), "2.5 M".into()));
    }
}
