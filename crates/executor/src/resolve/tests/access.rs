//! How agents reach their APIs, as the launch spec and the messages say it.

use dark_factory_types::{Budget, Provider, Usd};

use super::*;

fn claude(fixture: &Fixture, front_matter: &str) -> Result<Resolved, ResolveError> {
    fixture.resolve_file("prompts/p.md", &format!("image: i\n{front_matter}"))
}

fn rules(network: &NetworkMode) -> Vec<String> {
    match network {
        NetworkMode::Allow(rules) => rules.iter().map(ToString::to_string).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_key_of_the_host_stays_outside_and_only_the_api_is_in_reach() {
    let spec = claude(&Fixture::new(), "").unwrap().spec;

    assert_eq!(spec.providers, [Provider::Anthropic]);
    assert_eq!(spec.network, NetworkMode::Allow(Vec::new()));
    assert_eq!(
        spec.env["ANTHROPIC_BASE_URL"],
        "http://127.0.0.1:3128/anthropic"
    );
    assert!(!spec.env.values().any(|value| value.contains("host-key")));
}

#[test]
fn codex_is_told_of_the_broker_on_its_command_line() {
    let mut fixture = Fixture::new();
    let key = ("OPENAI_API_KEY".to_owned(), "k".to_owned());
    fixture.host.env.extend([key]);

    let spec = fixture
        .resolve_file("prompts/p.md", "agent: codex\nimage: i")
        .unwrap()
        .spec;

    let url = "openai_base_url=\"http://127.0.0.1:3128/openai/v1\"";
    assert!(spec.command.iter().any(|argument| argument == url));
    assert_eq!(spec.providers, [Provider::Openai]);
}

#[test]
fn a_run_with_its_own_key_reaches_its_api_by_itself_and_is_told_so() {
    let fixture = Fixture::new();

    let plain = claude(&fixture, "env: {ANTHROPIC_API_KEY: own}").unwrap();
    let own = "env: {ANTHROPIC_API_KEY: own, ANTHROPIC_BASE_URL: 'http://10.0.0.9:8080/x'}";
    let own = claude(&fixture, own).unwrap();

    assert!(plain.spec.providers.is_empty() && own.spec.providers.is_empty());
    assert_eq!(rules(&plain.spec.network), ["api.anthropic.com"]);
    assert_eq!(rules(&own.spec.network), ["10.0.0.9:8080"]);
    let notice = own
        .notices
        .iter()
        .find(|note| note.contains("ANTHROPIC_BASE_URL"));
    assert!(notice.unwrap().contains("no key of this machine"));
}

#[test]
fn an_address_of_the_runs_own_gets_no_key_of_the_host() {
    let fixture = Fixture::new();

    let refused = claude(&fixture, "env: {ANTHROPIC_BASE_URL: 'http://thief'}");

    let error = fixture.shown(refused);
    assert!(
        error.contains("claude would find no credentials"),
        "{error}"
    );
    assert!(
        error.contains("ANTHROPIC_BASE_URL (p.md:3)") || error.contains("p.md"),
        "{error}"
    );
    assert!(error.contains("no key of this machine"), "{error}");
}

#[test]
fn a_budget_is_kept_at_the_broker_or_refused() {
    let fixture = Fixture::new();
    let budget = "max-tokens: 1000\nmax-requests: none\nmax-cost: 0.5\n";

    let kept = claude(&fixture, budget).unwrap().spec.budget;
    let refused = fixture.error(budget);

    assert_eq!(
        kept,
        Budget {
            tokens: Some(1000),
            requests: None,
            cost: Some(Usd(500_000)),
        }
    );
    assert!(
        refused.contains("max-tokens is kept at the broker"),
        "{refused}"
    );
}

#[test]
fn none_is_none_and_other_obstacles_are_named() {
    let fixture = Fixture::new();

    let none = fixture.shown(claude(&fixture, "network: none"));
    let asked = fixture.shown(claude(&fixture, "network: none\ncredentials: broker"));
    let attach = fixture.shown(claude(&fixture, "transport: attach\ncredentials: broker"));

    assert!(none.contains("claude would find no credentials"), "{none}");
    assert!(
        asked.contains("the broker cannot be used: network: none"),
        "{asked}"
    );
    assert!(attach.contains("transport: attach"), "{attach}");
}

#[test]
fn the_credential_folder_is_mounted_for_reading_where_that_is_asked_for() {
    let fixture = Fixture::new();
    let refused = fixture.shown(claude(&fixture, "credentials: mount"));
    fs::create_dir_all(fixture.path("home/.claude")).unwrap();

    let spec = claude(&fixture, "credentials: mount").unwrap().spec;

    assert!(
        refused.contains("claude has no credential folder here"),
        "{refused}"
    );
    assert_eq!(spec.mounts[0].source, fixture.path("home/.claude"));
    assert_eq!(spec.mounts[0].target, "/home/agent/.claude");
    assert_eq!(spec.mounts[0].access, crate::spec::Access::ReadOnly);
    assert!(spec.providers.is_empty());
    assert_eq!(rules(&spec.network), ["api.anthropic.com"]);
}

#[test]
fn a_command_uses_a_provider_that_it_names() {
    let spec = Fixture::new().spec("providers: [anthropic]");

    assert_eq!(spec.providers, [Provider::Anthropic]);
    assert_eq!(Fixture::new().spec("").providers, []);
}
