//! How much may be under way at a time: counting, two thresholds and a limit that follows what the machine does. Pure; time
//! comes in as an argument.
//!
//! Time is cut into windows. A window is crowded when more of its good answers were late than prompt, or when too much is
//! under way and nothing was answered at all. Three crowded windows in a row, and there is a limit; from then on a
//! crowded window lowers it, a window that was not and in which somebody was turned away raises it, and a second in which nobody
//! was lifts it. Only good answers count: refusals are quick however busy the machine is, and a flood of them would hide
//! that it is.

use std::time::Duration;

use super::Class;

/// What is judged at once.
pub(super) const WINDOW: Duration = Duration::from_millis(100);
/// What takes longer inside than this is late. What waits for a caller or an upstream is not inside.
pub(super) const LATE: Duration = Duration::from_millis(100);
/// So many crowded windows in a row are no burst.
const SUSTAINED: u32 = 3;
/// So many windows in which nobody was turned away, and the limit is lifted.
const CALM: u32 = 10;
/// For each processor so much may be under way whatever the windows say. It keeps a machine busy, and one whose disk or
/// database is slow answers all that few ask for.
const FLOOR_PER_PROCESSOR: usize = 32;
/// Calls may fill the limit so many times over: when an overload begins, more mints are under way than there should be, and
/// each is followed by its call. In the long run there are no more calls than mandates.
const ROOM_OF_CALLS: usize = 4;
/// After so long a silence there is nothing more to judge: the limit is at its floor by then, or gone.
const LONGEST_SILENCE: u128 = 64;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Controller {
    floor: usize,
    limit: Option<usize>,
    begun: usize,
    calls: usize,
    window: Window,
    /// Crowded windows in a row.
    crowded: u32,
    /// Windows in a row in which nobody was turned away.
    calm: u32,
}

#[derive(Debug, Clone, Default)]
struct Window {
    ends: Duration,
    prompt: u64,
    late: u64,
    turned_away: u64,
}

impl Controller {
    pub(super) fn new(processors: usize) -> Self {
        Self {
            floor: processors.max(1) * FLOOR_PER_PROCESSOR,
            limit: None,
            begun: 0,
            calls: 0,
            window: Window::default(),
            crowded: 0,
            calm: 0,
        }
    }

    /// Whether one more of `class` may begin, which is then [under way](Self::enter).
    ///
    /// Calls look at calls alone: what a mandate was minted for is done whatever else is begun. What is begun looks at all.
    pub(super) fn ask(&mut self, now: Duration, class: Class) -> bool {
        self.settle(now);
        let has_room = self.limit.is_none_or(|limit| match class {
            Class::Begins => self.under_way() < limit,
            Class::Completes => self.calls < limit.saturating_mul(ROOM_OF_CALLS),
            Class::Spared => true,
        });
        if has_room {
            self.enter(class);
        } else {
            self.window.turned_away += 1;
        }
        has_room
    }

    /// One of `class` is worked on, asked for or not.
    pub(super) fn enter(&mut self, class: Class) {
        match class {
            Class::Begins => self.begun += 1,
            Class::Completes => self.calls += 1,
            Class::Spared => {}
        }
    }

    /// One of `class` is no longer worked on.
    pub(super) fn leave(&mut self, class: Class) {
        match class {
            Class::Begins => self.begun = self.begun.saturating_sub(1),
            Class::Completes => self.calls = self.calls.saturating_sub(1),
            Class::Spared => {}
        }
    }

    /// One was answered as it wished, after it had been worked on for `worked`.
    pub(super) fn answered(&mut self, now: Duration, worked: Duration) {
        self.settle(now);
        if worked > LATE {
            self.window.late += 1;
        } else {
            self.window.prompt += 1;
        }
    }

    pub(super) fn under_way(&self) -> usize {
        self.begun + self.calls
    }

    pub(super) fn limit(&self) -> Option<usize> {
        self.limit
    }

    /// Good answers of the window that has not ended: the prompt ones, and the late.
    #[cfg(test)]
    pub(super) fn answers(&self) -> (u64, u64) {
        (self.window.prompt, self.window.late)
    }

    /// Judges the windows that have ended.
    fn settle(&mut self, now: Duration) {
        let Some(over) = now.checked_sub(self.window.ends) else { return };
        let silent = over.as_nanos() / WINDOW.as_nanos();
        self.judge();
        for _ in 0..silent.min(LONGEST_SILENCE) {
            self.judge();
        }
        self.window.ends = now + WINDOW;
    }

    fn judge(&mut self) {
        let Window { prompt, late, turned_away, .. } = std::mem::take(&mut self.window);
        let nothing_moves = prompt + late == 0 && self.under_way() > self.floor;
        if late > prompt || nothing_moves {
            (self.crowded, self.calm) = (self.crowded.saturating_add(1), 0);
            let lower = match self.limit {
                None if self.crowded < SUSTAINED => return,
                None => self.under_way() / 2,
                Some(limit) => limit - limit / 4,
            };
            self.limit = Some(lower.max(self.floor));
            return;
        }
        self.crowded = 0;
        let Some(limit) = self.limit else { return };
        if turned_away > 0 {
            (self.limit, self.calm) = (Some(limit.saturating_add(limit / 8)), 0);
            return;
        }
        self.calm += 1;
        if self.calm == CALM {
            (self.limit, self.calm) = (None, 0);
        }
    }
}

#[cfg(test)]
mod t08_availability {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const FLOOR: usize = 2 * FLOOR_PER_PROCESSOR;

    fn ms(number: u64) -> Duration {
        Duration::from_millis(number)
    }

    /// What can happen to a controller.
    #[derive(Debug, Clone, Copy)]
    enum Event {
        Asks(Class),
        /// One that is under way ends, if there is one: answered well after a time, or not.
        Ends(Class, Option<Duration>),
        Passes(Duration),
    }

    fn class() -> impl Strategy<Value = Class> {
        prop_oneof![Just(Class::Begins), Just(Class::Completes)]
    }

    fn events(slowest: u64) -> impl Strategy<Value = Vec<Event>> {
        let ends = (class(), proptest::option::of((0..=slowest).prop_map(ms)));
        let event = prop_oneof![
            8 => class().prop_map(Event::Asks),
            3 => ends.prop_map(|(class, took)| Event::Ends(class, took)),
            1 => (0..250_u64).prop_map(|time| Event::Passes(ms(time))),
        ];
        proptest::collection::vec(event, 0..800)
    }

    /// Lets them happen. `look` sees how the controller stood before each question, who asked, and the answer.
    fn happen(controller: &mut Controller, events: &[Event], mut look: impl FnMut(&Controller, Class, bool)) {
        let mut now = Duration::ZERO;
        for event in events {
            match *event {
                Event::Passes(time) => now += time,
                Event::Asks(class) => {
                    controller.settle(now);
                    let before = controller.clone();
                    let admitted = controller.ask(now, class);
                    look(&before, class, admitted);
                    let more = controller.under_way() - before.under_way();
                    assert_eq!(more, usize::from(admitted));
                }
                Event::Ends(class, took) => {
                    let of_class = if class == Class::Begins { controller.begun } else { controller.calls };
                    if of_class > 0 {
                        controller.leave(class);
                        if let Some(took) = took {
                            controller.answered(now, took);
                        }
                    }
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn up_to_the_floor_nobody_is_turned_away_whatever_happened(events in events(400)) {
            happen(&mut Controller::new(2), &events, |before, _, admitted| {
                assert!(admitted || before.under_way() >= FLOOR, "{before:?}");
            });
        }

        #[test]
        fn calls_are_turned_away_for_calls_alone(events in events(400)) {
            happen(&mut Controller::new(2), &events, |before, class, admitted| {
                let mut alone = Controller { begun: 0, ..before.clone() };
                // Nothing is judged between the two questions.
                alone.window.ends = Duration::MAX;
                let mut crowd = Controller { begun: 1_000_000, ..alone.clone() };
                assert_eq!(
                    alone.ask(Duration::ZERO, Class::Completes),
                    crowd.ask(Duration::ZERO, Class::Completes),
                    "{before:?}"
                );
                if class == Class::Completes && !admitted {
                    assert!(before.calls >= ROOM_OF_CALLS * FLOOR, "{before:?}");
                }
            });
        }

        #[test]
        fn while_answers_are_prompt_nobody_is_turned_away(events in events(100)) {
            // One prompt answer in each window, however many refusals and cancellations there are.
            let mut answered = Vec::with_capacity(2 * events.len());
            for event in events {
                if let Event::Passes(time) = event {
                    answered.push(Event::Ends(Class::Begins, Some(ms(1))));
                    answered.push(Event::Passes(time.min(WINDOW)));
                    answered.push(Event::Asks(Class::Begins));
                } else {
                    answered.push(event);
                }
            }
            happen(&mut Controller::new(2), &answered, |before, _, admitted| assert!(admitted, "{before:?}"));
        }

        #[test]
        fn who_is_turned_away_finds_a_limit_reached(events in events(400)) {
            happen(&mut Controller::new(2), &events, |before, class, admitted| {
                let Some(limit) = before.limit else { return assert!(admitted) };
                assert!(limit >= FLOOR);
                match class {
                    Class::Completes => assert_eq!(admitted, before.calls < ROOM_OF_CALLS * limit),
                    _ => assert_eq!(admitted, before.under_way() < limit),
                }
            });
        }

        #[test]
        fn a_second_after_the_last_was_turned_away_there_is_no_limit(events in events(400)) {
            let mut controller = Controller::new(2);
            happen(&mut controller, &events, |_, _, _| {});
            // All end, and then it is quiet.
            (controller.begun, controller.calls) = (0, 0);
            let last = controller.window.ends;
            controller.settle(last);
            controller.settle(last + WINDOW * CALM + WINDOW);
            assert_eq!(controller.limit, None);
        }
    }

    #[test]
    fn a_burst_is_no_overload_and_three_late_windows_are() {
        let mut controller = Controller::new(2);
        for _ in 0..1_000 {
            assert!(controller.ask(ms(0), Class::Begins));
        }
        for window in 0..3 {
            let now = ms(10) + WINDOW * window;
            controller.answered(now, ms(150));
            assert!(controller.ask(now, Class::Begins), "{window}");
        }
        let now = ms(10) + WINDOW * 3;
        assert!(!controller.ask(now, Class::Begins));
        assert!(controller.ask(now, Class::Completes));
        assert!(controller.ask(now, Class::Spared));
    }

    #[test]
    fn what_stands_still_is_overloaded_without_an_answer() {
        let mut controller = Controller::new(1);
        let asked = (0..400).map(|number| controller.ask(ms(number), Class::Begins));
        assert!(!asked.last().unwrap_or(true));
        assert!(Controller::new(1).ask(ms(400), Class::Begins));
    }

    /// A machine that answers one request after the other, a thousandth of a second each, and callers who mint a mandate and
    /// then make the call it is for.
    struct Machine {
        controller: Option<Controller>,
        queue: VecDeque<(Class, Duration)>,
        done: u32,
        wasted: u32,
        slowest: Duration,
    }

    impl Machine {
        fn new(controller: Option<Controller>) -> Self {
            Self { controller, queue: VecDeque::new(), done: 0, wasted: 0, slowest: Duration::ZERO }
        }

        fn arrives(&mut self, now: Duration, class: Class) -> bool {
            let admitted = self.controller.as_mut().is_none_or(|controller| controller.ask(now, class));
            if admitted {
                self.queue.push_back((class, now));
            }
            admitted
        }

        /// A thousandth of a second, in which `mints` callers come.
        fn tick(&mut self, now: Duration, mints: u32) {
            for _ in 0..mints {
                self.arrives(now, Class::Begins);
            }
            let Some((class, since)) = self.queue.pop_front() else { return };
            let (now, took) = (now + ms(1), now + ms(1) - since);
            if let Some(controller) = &mut self.controller {
                controller.leave(class);
                controller.answered(now, took);
            }
            self.slowest = self.slowest.max(took);
            match class {
                Class::Begins => self.wasted += u32::from(!self.arrives(now, Class::Completes)),
                _ => self.done += 1,
            }
        }
    }

    #[test]
    fn five_times_the_capacity_leaves_the_goodput_the_delay_and_the_recovery_as_they_should_be() {
        // The capacity is 500 calls a second, two requests each.
        let offered = |machine: &mut Machine, from: u64, seconds: u64| {
            let before = machine.done;
            for tick in from * 1_000..(from + seconds) * 1_000 {
                machine.tick(ms(tick), if tick % 2 == 0 { 2 } else { 3 });
            }
            machine.done - before
        };
        let mut machine = Machine::new(Some(Controller::new(2)));
        let first = offered(&mut machine, 0, 2);
        // What came before it was noticed is in the way for as long as it takes.
        assert!(first >= 700, "{first} of 1000 calls while it was being noticed");
        (machine.slowest, machine.wasted) = (Duration::ZERO, 0);
        let then = offered(&mut machine, 2, 20);
        assert!(then >= 9_500, "{then} of 10000 calls");
        assert!(machine.slowest <= ms(300), "{:?}", machine.slowest);
        assert_eq!(machine.wasted, 0, "mandates for nothing");
        // Nobody comes any more.
        let over = 22_000;
        let idle = (over..over + 1_000).find(|tick| {
            machine.tick(ms(*tick), 0);
            machine.queue.is_empty()
        });
        assert!(idle.is_some_and(|tick| tick < over + 500), "{idle:?}");
        // Without a limit the same load is answered ever later.
        let mut unbounded = Machine::new(None);
        offered(&mut unbounded, 0, 20);
        assert!(unbounded.slowest > ms(10_000), "{:?}", unbounded.slowest);
    }
}
