//! `caracal config check`: what would be read, from where, and what is wrong with it, without starting anything. Nothing is
//! made and nobody is asked.

use serde::Serialize;

use caracal_http::redact;

use super::variables::{Reader, VARIABLES, Variable, WITHOUT_EFFECT};
use super::{Engine, Environment, Mistake, Mistakes, SecretFiles, Service, Settings, Source, UpFlags};

/// One variable as it would be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Its name.
    pub name: &'static str,
    /// Its effective value; of a secret only whether it is set.
    pub value: String,
    /// Where that comes from.
    pub source: String,
}

/// What a start with the same flags and environment would read.
#[derive(Debug, Clone, Serialize)]
pub struct Checked {
    /// Whether it would be accepted.
    pub ok: bool,
    /// How strict it would be.
    pub mode: String,
    /// `embedded` or `postgres`.
    pub engine: &'static str,
    /// What it would run.
    pub roles: Vec<&'static str>,
    /// Every variable that those roles read on that engine, and any that is set.
    pub variables: Vec<Shown>,
    /// Every mistake.
    pub mistakes: Vec<Mistake>,
    /// What is no mistake and worth knowing.
    pub notes: Vec<String>,
}

impl Checked {
    /// Reads what [`Settings::read`] reads.
    pub fn of(flags: &UpFlags, environment: &Environment) -> Self {
        let (settings, mistakes) = match Settings::read(flags, environment) {
            Ok(settings) => (Some(settings), Vec::new()),
            Err(Mistakes(mistakes)) => (None, mistakes),
        };
        // Read once more, leniently: what is wrong is known already.
        let mut ignored = Vec::new();
        let roles = super::roles(&mut ignored, flags.roles.as_deref());
        let mut reader = Reader { environment, roles: &roles, mistakes: &mut ignored };
        let mode = super::mode(&mut reader, flags);
        let engine = Engine::read(&mut reader, mode);
        let is_shared = matches!(engine, Engine::Shared(_));
        let data_dir = flags.data_dir.clone().map_or_else(|| super::default_data_dir(environment), Ok).ok();
        let view =
            View { environment, settings: settings.as_ref(), flags, mode: mode.to_string(), data_dir, is_shared };
        let read = VARIABLES.iter().filter(|variable| variable.roles.iter().any(|role| roles.contains(role)));
        let variables = read.filter_map(|variable| view.shown(variable)).collect();
        let without_effect = WITHOUT_EFFECT.iter().filter(|(name, _)| environment.get(name).is_some());
        let mut notes = environment.warnings().to_vec();
        notes.extend(without_effect.map(|(name, why)| format!("{name} has no effect: {why}")));
        Self {
            ok: mistakes.is_empty(),
            mode: view.mode,
            engine: if is_shared { "postgres" } else { "embedded" },
            roles: roles.iter().map(|role| role.name()).collect(),
            variables,
            mistakes,
            notes,
        }
    }
}

struct View<'v> {
    environment: &'v Environment,
    settings: Option<&'v Settings>,
    flags: &'v UpFlags,
    mode: String,
    data_dir: Option<std::path::PathBuf>,
    is_shared: bool,
}

impl View<'_> {
    /// `None`: of no interest on this engine.
    fn shown(&self, variable: &Variable) -> Option<Shown> {
        let name = variable.name;
        let file_name = format!("{name}_FILE");
        let given = self.environment.get(name);
        if variable.shared && !self.is_shared && given.is_none() {
            return None;
        }
        let (value, source) = if variable.secret {
            let kept = || self.data_dir.as_ref().is_some_and(|data| SecretFiles::in_data_dir(data).holds(name));
            let (set, source) = match given {
                Some(_) => (true, self.environment.source(name)),
                None if self.environment.get(&file_name).is_some() => (true, Source::File),
                None if !self.is_shared && kept() => (true, Source::DataDirectory),
                None => (false, Source::Default),
            };
            (if set { "set" } else { "not set" }.to_owned(), source)
        } else {
            match given {
                Some(value) => (open(value), self.environment.source(name)),
                None => (self.default_of(variable), Source::Default),
            }
        };
        Some(Shown { name, value, source: source.to_string() })
    }

    /// The default, computed where it hangs on something else.
    fn default_of(&self, variable: &Variable) -> String {
        let computed = match variable.name {
            "CARACAL_MODE" => Some(self.mode.clone()),
            "CARACAL_HOME" => self.data_dir.as_ref().map(|data| data.display().to_string()),
            "ISSUER_URL" if !self.is_shared => self.settings.map(|settings| {
                let address = std::net::SocketAddr::new(self.flags.bind, settings.port(Service::Sts));
                format!("http://{address}")
            }),
            "PORT" => self.settings.map(|settings| {
                let ports = settings.roles.iter().map(|role| format!("{} {}", role.name(), settings.port(*role)));
                ports.collect::<Vec<_>>().join(", ")
            }),
            _ => None,
        };
        computed.unwrap_or_else(|| variable.default.to_owned())
    }
}

/// A value for everybody's eyes. What stands before an `@` may be a password, wherever somebody put it.
fn open(value: &str) -> String {
    if value.contains("://") && value.contains('@') {
        return "set, and not shown: it holds a login".to_owned();
    }
    redact::text(value).into_owned()
}

impl Serialize for Mistake {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut members = serializer.serialize_struct("Mistake", 2)?;
        members.serialize_field("name", &self.name)?;
        members.serialize_field("what", &redact::text(&self.what))?;
        members.end()
    }
}
