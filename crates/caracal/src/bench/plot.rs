//! Latencies as a picture: how long the slowest of ten, of a hundred, of a thousand took. One SVG file without anything
//! outside it.

use std::fmt::Write as _;

use super::load::Phase;

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 520.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 60.0;
const BOTTOM: f64 = 60.0;
/// Points of a line, for each factor of ten.
const POINTS: u32 = 40;
/// Colours that are told apart by everybody, and dashes for print.
const LOOKS: [(&str, &str); 4] = [("#0072b2", "none"), ("#d55e00", "8 3"), ("#009e73", "3 3"), ("#6b4c9a", "10 3 3 3")];

/// One line of a picture of latencies.
pub(super) struct Series<'p> {
    pub(super) name: String,
    pub(super) phase: &'p Phase,
}

/// One line of a picture of what grows: how many there are, and microseconds.
pub(super) struct Curve {
    pub(super) name: &'static str,
    pub(super) points: Vec<(u64, u64)>,
}

/// What is drawn between the axes.
struct Line<'p> {
    name: &'p str,
    /// How far to the right, from 0 to 1, and powers of ten of milliseconds.
    points: Vec<(f64, f64)>,
}

/// To the right whatever is given from 0 to 1, upwards tens of milliseconds.
struct Frame {
    /// Powers of ten of milliseconds.
    low: f64,
    high: f64,
}

impl Frame {
    fn of(lines: &[Line<'_>]) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for (_, power) in lines.iter().flat_map(|line| &line.points) {
            low = low.min(*power);
            high = high.max(*power);
        }
        // The three digits that are kept of a hundred milliseconds may be a little more than that.
        let (low, high) = if low <= high { (low.floor(), (high - 0.001).ceil()) } else { (0.0, 1.0) };
        Self { low, high: high.max(low + 1.0) }
    }

    fn x(to_the_right: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * to_the_right
    }

    fn y(&self, power: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (power - self.low) / (self.high - self.low)
    }
}

/// The picture of how long the slowest took.
pub(super) fn latencies(title: &str, series: &[Series<'_>]) -> String {
    let most = series.iter().map(|series| series.phase.0.len()).max().unwrap_or_default();
    // Powers of ten of "one in so many".
    let rarest = tens(most.max(10)).ceil().min(6.0);
    let names =
        [(0.0, "0 %"), (f64::log10(2.0), "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
    let names = names.into_iter().chain([(5.0, "99.999 %"), (6.0, "99.9999 %")]);
    let ticks: Vec<_> = names
        .filter(|(rarity, _)| *rarity <= rarest)
        .map(|(rarity, name)| (rarity / rarest, name.to_owned()))
        .collect();
    let lines: Vec<_> = series
        .iter()
        .map(|Series { name, phase }| Line {
            name,
            points: if phase.0.is_empty() { Vec::new() } else { points(phase, rarest) },
        })
        .collect();
    svg(title, "of all calls took no longer than", &ticks, &lines)
}

/// The picture of what a call takes as something grows.
pub(super) fn curves(title: &str, of: &str, curves: &[Curve]) -> String {
    let numbers = || curves.iter().flat_map(|curve| &curve.points).map(|(number, _)| (*number).max(1));
    let low = tens(numbers().min().unwrap_or(1)).floor();
    let high = tens(numbers().max().unwrap_or(10)).ceil().max(low + 1.0);
    let to_the_right = |power: f64| (power - low) / (high - low);
    let mut ticks = Vec::new();
    let mut power = low;
    while power <= high {
        ticks.push((to_the_right(power), thousands(10_f64.powf(power))));
        power += 1.0;
    }
    let lines: Vec<_> = curves
        .iter()
        .map(|Curve { name, points }| Line {
            name,
            points: points.iter().map(|(number, us)| (to_the_right(tens(*number)), ms(*us).log10())).collect(),
        })
        .collect();
    svg(title, of, &ticks, &lines)
}

fn svg(title: &str, to_the_right: &str, ticks: &[(f64, String)], lines: &[Line<'_>]) -> String {
    let frame = Frame::of(lines);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\" role=\"img\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{title}</text>\n",
        title = escaped(title)
    );
    axes(&mut svg, &frame, to_the_right, ticks);
    for (number, Line { name, points }) in lines.iter().enumerate() {
        let (colour, dashes) = LOOKS[number % LOOKS.len()];
        let look = format!("stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\" fill=\"none\"");
        if !points.is_empty() {
            let places = points.iter().map(|(x, power)| format!("{:.1},{:.1}", Frame::x(*x), frame.y(*power)));
            // Writing to a string does not fail.
            let _ = writeln!(svg, "<polyline {look} points=\"{}\"/>", places.collect::<Vec<_>>().join(" "));
        }
        let x = LEFT + 190.0 * f64::from(u32::try_from(number).unwrap_or_default());
        let _ = writeln!(
            svg,
            "<line {look} x1=\"{x}\" y1=\"44\" x2=\"{}\" y2=\"44\"/><text x=\"{}\" y=\"48\">{}</text>",
            x + 30.0,
            x + 36.0,
            escaped(name)
        );
    }
    svg + "</svg>\n"
}

fn axes(svg: &mut String, frame: &Frame, to_the_right: &str, ticks: &[(f64, String)]) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut power = frame.low;
    while power <= frame.high {
        for step in [1.0, 2.0, 5.0] {
            let at = power + f64::log10(step);
            if at <= frame.high + 1e-9 {
                let y = frame.y(at);
                let _ = writeln!(
                    svg,
                    "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
                     <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                    LEFT - 8.0,
                    y + 4.0,
                    step * 10_f64.powf(power)
                );
            }
        }
        power += 1.0;
    }
    for (at, name) in ticks {
        let x = Frame::x(*at);
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
            bottom + 20.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\">{}</text>\
         <text x=\"20\" y=\"{TOP}\" text-anchor=\"middle\">ms</text>",
        HEIGHT - 14.0,
        escaped(to_the_right)
    );
}

/// As far as there are calls to speak of.
fn points(phase: &Phase, rarest: f64) -> Vec<(f64, f64)> {
    let last = tens(phase.0.len()).min(rarest);
    let mut points = Vec::new();
    for number in 0.. {
        let rarity = (f64::from(number) / f64::from(POINTS)).min(last);
        let quantile = 1.0 - 10_f64.powf(-rarity);
        points.push((rarity / rarest, ms(phase.0.value_at_quantile(quantile).max(1)).log10()));
        if rarity >= last {
            break;
        }
    }
    points
}

fn tens(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX)).log10()
}

/// With commas, as numbers of things are read.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut shown = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

fn ms(us: u64) -> f64 {
    f64::from(u32::try_from(us).unwrap_or(u32::MAX)) / 1_000.0
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::commands::Failure;

    fn phase(ms: impl IntoIterator<Item = u64>) -> Phase {
        let mut phase = Phase::new().unwrap_or_else(|Failure(why)| panic!("{why}"));
        for ms in ms {
            phase.record(Duration::from_millis(ms));
        }
        phase
    }

    fn line(svg: &str) -> Vec<(f64, f64)> {
        let points = svg.split_once("points=\"").unwrap().1.split_once('"').unwrap().0;
        let numbers = |point: &str| {
            let (x, y) = point.split_once(',').unwrap();
            (x.parse().unwrap(), y.parse().unwrap())
        };
        points.split(' ').map(numbers).collect()
    }

    #[test]
    fn a_line_goes_right_and_up_and_ends_at_the_slowest_call() {
        let phase = phase(1..=100);
        let svg = latencies("a < b", &[Series { name: "call".to_owned(), phase: &phase }]);
        let line = line(&svg);
        assert!(line.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 >= pair[1].1), "{line:?}");
        // A hundred calls speak of one in a hundred, and the slowest took a hundred milliseconds: the upper right corner.
        let (x, y) = *line.last().unwrap();
        assert!(x == WIDTH - RIGHT && (y - TOP).abs() < 2.0, "{x} {y}");
        assert_eq!(line[0], (LEFT, HEIGHT - BOTTOM));
        assert!(svg.contains("a &lt; b") && svg.contains(">99 %<") && !svg.contains(">99.9 %<"), "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_curve_goes_from_the_first_power_of_ten_to_the_last() {
        let curve = Curve { name: "median", points: vec![(1_000, 2_000), (30_000, 2_000), (1_000_000, 20_000)] };
        let svg = curves("beside sessions", "sessions", &[curve]);
        let line = line(&svg);
        let (first, last) = (line[0], line[2]);
        assert!((first.0 - LEFT).abs() < 0.1 && (last.0 - (WIDTH - RIGHT)).abs() < 0.1, "{line:?}");
        assert!((first.1 - line[1].1).abs() < 0.1 && last.1 < first.1, "{line:?}");
        for name in [">1,000<", ">10,000<", ">1,000,000<", ">median<"] {
            assert!(svg.contains(name), "{name} in {svg}");
        }
    }

    #[test]
    fn what_has_no_calls_has_a_name_and_no_line() {
        let empty = phase([]);
        let svg = latencies("nothing", &[Series { name: "call".to_owned(), phase: &empty }]);
        assert!(svg.contains(">call<") && !svg.contains("polyline"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
