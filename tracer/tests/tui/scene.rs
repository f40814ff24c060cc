//! What is shown, and a view to show it in.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier};
use tracer::model::Settings;
use tracer::pipeline::Pipeline;
use tracer::player::Player;
use tracer::report::{LossRow, SourceFacts, TotalsRow};
use tracer::source::replay::Replay;
use tracer::source::script::{Script, Step};
use tracer::tui::state::Effect;
use tracer::tui::theme::{Choice, Theme};
use tracer::tui::{Picture, Ui, Vitals};

/// Readers of the pile-up, the writer before them not counted.
pub const READERS: u32 = 1_499;

/// The picture at the end of a scenario text.
pub fn picture(text: &str) -> Picture {
    let facts = SourceFacts {
        mode: "live".into(),
        host: "web17".into(),
        kernel: "6.1.0-56-cloud-amd64".into(),
        probes: vec![
            "tp_contention_begin on contention_begin".into(),
            "tp_contention_end on contention_end".into(),
        ],
        ..SourceFacts::default()
    };
    let script = Script::parse(text).expect("scenario");
    let mut pipeline = Pipeline::new(Settings::default(), facts);
    for step in &script.steps {
        match step {
            Step::Event(event) => drop(pipeline.apply(event)),
            Step::Update | Step::Expect { .. } => drop(pipeline.finish()),
        }
    }
    pipeline.finish();
    seen(&pipeline)
}

/// The picture at the end of a checked-in capture.
pub fn recorded(name: &str) -> Picture {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/captures/{name}.holdup"));
    let mut player = Player::new(Replay::open(&[path]).expect("a capture"));
    while player.step(|_| Ok(())).expect("an event") {}
    seen(player.pipeline())
}

fn seen(pipeline: &Pipeline) -> Picture {
    let model = pipeline.model();
    let vitals = Vitals {
        now: pipeline.now(),
        events_per_second: 1_234,
        own_cpu: Some(12),
        probe_cpu: Some(3),
        losses: LossRow::of(model),
        totals: TotalsRow::of(model),
        playback: None,
    };
    Picture {
        report: Arc::new(pipeline.report()),
        vitals,
    }
}

/// Case B with all its tasks: a reader asleep in I/O, a writer next, everybody else behind the writer.
pub fn pile_up() -> String {
    let mut text = String::from(
        "task h 4442 dd tgid=4424 cgroup=9\ntask w 70 writer cgroup=9\nlock S rwsem mmap_lock\n\
         stack sh bt_get blk_mq_get_tag filemap_fault __do_page_fault\n\
         stack sw rwsem_down_write_slowpath down_write_killable do_mmap\n\
         stack sr rwsem_down_read_slowpath down_read proc_pid_cmdline_read\n",
    );
    for i in 0..READERS {
        let _ = writeln!(text, "task r{i} {} ps-{i} cgroup={}", 5_000 + i, i % 7 + 1);
    }
    text.push_str("at 100s\nround all-tasks begin 1\nstate h in-io switches=77 last-switch=40s stack=sh cpu=2\n");
    text.push_str("wait w S owner=readers(h,1) by=waiter-record queued=0 stack=sw since=41s\n");
    for i in 0..READERS {
        let _ = writeln!(
            text,
            "wait r{i} S owner=readers(h,1) by=waiter-record queued={} stack=sr mode=shared since={}ms",
            i + 1,
            42_000 + 30 * i
        );
    }
    text.push_str("holder h S shared by=stack-word rank=0\ndepend h block-io by=stack-frames stack=sh since=40s\n");
    text.push_str("round all-tasks end 1\n");
    text
}

/// A view under test.
pub struct Shown {
    pub ui: Ui,
    pub buffer: Buffer,
}

impl Shown {
    pub fn new(picture: Picture, (width, height): (u16, u16)) -> Self {
        Self::themed(picture, (width, height), &[("LANG", "C.UTF-8")])
    }

    pub fn themed(picture: Picture, (width, height): (u16, u16), vars: &[(&str, &str)]) -> Self {
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let mut ui = Ui::new(Theme::choose(Choice::Auto, false, var));
        ui.show(picture);
        let mut shown = Self {
            ui,
            buffer: Buffer::empty(Rect::new(0, 0, width, height)),
        };
        shown.draw();
        shown
    }

    pub fn draw(&mut self) {
        self.ui.draw(&mut self.buffer);
    }

    pub fn key(&mut self, code: KeyCode) -> Effect {
        self.input(&Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    pub fn input(&mut self, event: &Event) -> Effect {
        let effect = self.ui.input(event);
        self.draw();
        effect
    }

    pub fn keys(&mut self, text: &str) {
        for c in text.chars() {
            self.key(KeyCode::Char(c));
        }
    }

    /// The characters on the screen.
    pub fn text(&self) -> String {
        let width = usize::from(self.buffer.area.width);
        let mut text = String::new();
        for row in self.buffer.content.chunks(width) {
            let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// Everything on the screen that is not in the terminal's plain style, as runs of cells.
    pub fn styles(&self) -> String {
        let width = usize::from(self.buffer.area.width);
        let mut text = String::new();
        for (y, row) in self.buffer.content.chunks(width).enumerate() {
            let mut runs = Vec::new();
            let mut x = 0;
            for run in row.chunk_by(|a, b| a.fg == b.fg && a.modifier == b.modifier) {
                let first = run.first().expect("a run has a cell");
                assert_eq!(first.bg, Color::Reset, "the terminal's own background stays");
                if first.fg != Color::Reset || !first.modifier.is_empty() {
                    runs.push(format!("{x}-{} {}", x + run.len() - 1, name(first.fg, first.modifier)));
                }
                x += run.len();
            }
            if !runs.is_empty() {
                let _ = writeln!(text, "{y}: {}", runs.join(", "));
            }
        }
        text
    }

    /// The row of the selection: the reversed one in the body.
    pub fn selected(&self) -> String {
        let width = usize::from(self.buffer.area.width);
        let rows = self.buffer.content.chunks(width).skip(3);
        let row = rows
            .into_iter()
            .find(|row| row.iter().take(20).all(|c| c.modifier.contains(Modifier::REVERSED)));
        let cells = row.expect("something is selected").iter();
        cells
            .map(ratatui::buffer::Cell::symbol)
            .collect::<String>()
            .trim_end()
            .to_owned()
    }
}

fn name(colour: Color, modifier: Modifier) -> String {
    let mut words = Vec::new();
    if colour != Color::Reset {
        words.push(format!("{colour:?}").to_lowercase());
    }
    words.extend(modifier.iter_names().map(|(name, _)| name.to_lowercase()));
    words.join("+")
}
