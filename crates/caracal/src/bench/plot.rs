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

/// One line of the picture.
pub(super) struct Series<'p> {
    pub(super) name: String,
    pub(super) phase: &'p Phase,
}

/// From tens of the microsecond to tens of the slowest call.
struct Scale {
    /// Powers of ten of "one in so many".
    rarest: f64,
    /// Powers of ten of milliseconds.
    low: f64,
    high: f64,
}

impl Scale {
    fn of(series: &[Series<'_>]) -> Self {
        let most = series.iter().map(|series| series.phase.0.len()).max().unwrap_or_default();
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for Series { phase, .. } in series.iter().filter(|series| !series.phase.0.is_empty()) {
            low = low.min(ms(phase.0.min().max(1)).log10());
            high = high.max(ms(phase.0.max().max(1)).log10());
        }
        // The three digits that are kept of a hundred milliseconds may be a little more than that.
        let (low, high) = if low <= high { (low.floor(), (high - 0.001).ceil()) } else { (0.0, 1.0) };
        let rarest = f64::from(u32::try_from(most).unwrap_or(u32::MAX).max(10)).log10().ceil().min(6.0);
        Self { rarest, low, high: high.max(low + 1.0) }
    }

    fn x(&self, rarity: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * rarity / self.rarest
    }

    fn y(&self, power: f64) -> f64 {
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (power - self.low) / (self.high - self.low)
    }
}

/// The picture.
pub(super) fn svg(title: &str, series: &[Series<'_>]) -> String {
    let scale = Scale::of(series);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\" role=\"img\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{title}</text>\n",
        title = escaped(title)
    );
    axes(&mut svg, &scale);
    for (number, Series { name, phase }) in series.iter().enumerate() {
        let (colour, dashes) = LOOKS[number % LOOKS.len()];
        let look = format!("stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\" fill=\"none\"");
        if !phase.0.is_empty() {
            // Writing to a string does not fail.
            let _ = writeln!(svg, "<polyline {look} points=\"{}\"/>", points(phase, &scale));
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

fn axes(svg: &mut String, scale: &Scale) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut power = scale.low;
    while power <= scale.high {
        for step in [1.0, 2.0, 5.0] {
            let at = power + f64::log10(step);
            if at <= scale.high + 1e-9 {
                let y = scale.y(at);
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
    let names =
        [(0.0, "0 %"), (f64::log10(2.0), "50 %"), (1.0, "90 %"), (2.0, "99 %"), (3.0, "99.9 %"), (4.0, "99.99 %")];
    for (rarity, name) in names.into_iter().chain([(5.0, "99.999 %"), (6.0, "99.9999 %")]) {
        if rarity <= scale.rarest {
            let x = scale.x(rarity);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{TOP}\" x2=\"{x:.1}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{name}</text>",
                bottom + 20.0
            );
        }
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\">of all calls took no longer than</text>\
         <text x=\"20\" y=\"{TOP}\" text-anchor=\"middle\">ms</text>",
        HEIGHT - 14.0
    );
}

/// As far as there are calls to speak of.
fn points(phase: &Phase, scale: &Scale) -> String {
    let rarest = f64::from(u32::try_from(phase.0.len()).unwrap_or(u32::MAX)).log10().min(scale.rarest);
    let mut points = String::new();
    for number in 0.. {
        let rarity = (f64::from(number) / f64::from(POINTS)).min(rarest);
        let quantile = 1.0 - 10_f64.powf(-rarity);
        let power = ms(phase.0.value_at_quantile(quantile).max(1)).log10();
        let _ = write!(points, "{}{:.1},{:.1}", if number == 0 { "" } else { " " }, scale.x(rarity), scale.y(power));
        if rarity >= rarest {
            break;
        }
    }
    points
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
        let svg = svg("a < b", &[Series { name: "call".to_owned(), phase: &phase }]);
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
    fn what_has_no_calls_has_a_name_and_no_line() {
        let empty = phase([]);
        let svg = svg("nothing", &[Series { name: "call".to_owned(), phase: &empty }]);
        assert!(svg.contains(">call<") && !svg.contains("polyline"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }
}
