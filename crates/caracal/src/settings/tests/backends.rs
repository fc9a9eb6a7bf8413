//! Where secrets lie: what each backend needs, and what is said when it is not there.

use caracal_broker::backends::AzureCredentials;

use super::*;

/// Nothing but what is given, for a backend that is named.
fn read(kind: &str, given: &[(&str, &str)]) -> Result<SecretBackendSettings, Vec<(String, String)>> {
    let environment: Environment = given.iter().chain(&[("CARACAL_SECRET_BACKEND", kind)]).copied().collect();
    let read = Settings::read(&flags("127.0.0.1"), &environment).map(|settings| settings.secret_backend);
    read.map_err(|Mistakes(found)| found.into_iter().map(|mistake| (mistake.name, mistake.what)).collect())
}

/// The names of what is wrong.
fn wrong(kind: &str, given: &[(&str, &str)]) -> Vec<String> {
    read(kind, given).err().unwrap_or_default().into_iter().map(|(name, _)| name).collect()
}

const INFISICAL: [(&str, &str); 2] = [("CARACAL_INFISICAL_TOKEN", "st.t"), ("CARACAL_INFISICAL_PROJECT_ID", "p-1")];
const AZURE: [(&str, &str); 4] = [
    ("CARACAL_AZURE_VAULT_URL", "https://kv.vault.azure.net/"),
    ("CARACAL_AZURE_TENANT_ID", "72f988bf-86f1-41af-91ab-2d7cd011db47"),
    ("CARACAL_AZURE_CLIENT_ID", "c-1"),
    ("CARACAL_AZURE_CLIENT_SECRET", "s3cret"),
];
const AWS: [(&str, &str); 3] =
    [("AWS_REGION", "eu-central-1"), ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"), ("AWS_SECRET_ACCESS_KEY", "s3cret")];

#[test]
fn t05_secrets_a_backend_that_has_what_it_needs_is_read_in_any_spelling_of_its_name_and_no_other() {
    let vault = [("CARACAL_VAULT_ADDR", "https://vault:8200"), ("CARACAL_VAULT_TOKEN", "hvs.t")];
    let custom = [("CARACAL_CUSTOM_SECRETS_URL", "http://localhost:1"), ("CARACAL_CUSTOM_SECRETS_TOKEN", "t")];
    let google = [("CARACAL_GCP_PROJECT", "project-1")];
    for (name, given) in [
        ("builtin", &[][..]),
        ("vault", &vault),
        ("infisical", &INFISICAL),
        ("azurekeyvault", &AZURE),
        ("awssecretsmanager", &AWS),
        ("gcpsecretmanager", &google),
        ("custom", &custom),
    ] {
        let spelled = format!("  {} ", name.to_uppercase());
        let settings = read(&spelled, given).unwrap();
        assert_eq!(format!("{settings:?}"), name, "and nothing of what is secret");
    }
    assert_eq!(format!("{:?}", read("", &[]).unwrap()), "builtin");
    let [(name, what)] = &read("consul", &[]).err().unwrap()[..] else { panic!() };
    assert!(
        name == "CARACAL_SECRET_BACKEND" && what.contains("`consul`") && what.contains("gcpsecretmanager"),
        "{what}"
    );
}

#[test]
fn t05_secrets_every_value_that_a_backend_lacks_is_named_at_once() {
    assert_eq!(wrong("vault", &[]), ["CARACAL_VAULT_ADDR", "CARACAL_VAULT_TOKEN"]);
    assert_eq!(wrong("infisical", &[]), ["CARACAL_INFISICAL_TOKEN", "CARACAL_INFISICAL_PROJECT_ID"]);
    assert_eq!(wrong("azurekeyvault", &[]), ["CARACAL_AZURE_VAULT_URL"]);
    assert_eq!(wrong("awssecretsmanager", &[]), ["CARACAL_AWS_REGION", "AWS_ACCESS_KEY_ID"]);
    assert_eq!(wrong("gcpsecretmanager", &[]), ["CARACAL_GCP_PROJECT"]);
    assert_eq!(wrong("custom", &[]), ["CARACAL_CUSTOM_SECRETS_URL", "CARACAL_CUSTOM_SECRETS_TOKEN"]);
}

#[test]
fn infisical_has_a_cloud_an_environment_and_a_folder_of_its_own() {
    let read = |more: &[(&str, &str)]| match read("infisical", &[&INFISICAL, more].concat()).unwrap() {
        SecretBackendSettings::Infisical(settings) => settings,
        other => panic!("{other:?}"),
    };
    let settings = read(&[]);
    assert_eq!(settings.url.as_str(), "https://app.infisical.com");
    assert_eq!((settings.environment.as_str(), settings.path.as_str()), ("prod", "/"));
    let own = [("CARACAL_INFISICAL_URL", "https://eu.infisical.com/"), ("CARACAL_INFISICAL_ENV", "dev")];
    assert_eq!((read(&own).url.as_str(), read(&own).environment.as_str()), ("https://eu.infisical.com", "dev"));
    for bad in [("CARACAL_INFISICAL_URL", "http://infisical.internal"), ("CARACAL_INFISICAL_PATH", "caracal")] {
        assert_eq!(wrong("infisical", &[&INFISICAL[..], &[bad]].concat()), [bad.0]);
    }
}

#[test]
fn azure_is_asked_as_a_whole_client_or_as_the_machine() {
    let without = |left_out: &[&str]| -> Vec<(&str, &str)> {
        AZURE.into_iter().filter(|(name, _)| !left_out.contains(name)).collect()
    };
    let secret = "CARACAL_AZURE_CLIENT_SECRET";
    assert_eq!(wrong("azurekeyvault", &without(&["CARACAL_AZURE_TENANT_ID"])), ["CARACAL_AZURE_TENANT_ID"]);
    assert_eq!(wrong("azurekeyvault", &without(&["CARACAL_AZURE_CLIENT_ID"])), ["CARACAL_AZURE_CLIENT_ID"]);
    assert_eq!(wrong("azurekeyvault", &without(&[secret])), [secret]);
    let machine = without(&[secret, "CARACAL_AZURE_TENANT_ID"]);
    let SecretBackendSettings::Azure(settings) = read("azurekeyvault", &machine).unwrap() else { panic!() };
    let AzureCredentials::ManagedIdentity { client_id } = settings.credentials else { panic!() };
    assert_eq!(client_id.as_deref(), Some("c-1"));
    let elsewhere = [
        ("CARACAL_AZURE_VAULT_URL", "https://kv.vault.azure.net"),
        ("CARACAL_AZURE_TENANT_ID", "a/../b"),
        ("CARACAL_AZURE_CLIENT_ID", "c"),
        (secret, "s"),
    ];
    assert_eq!(wrong("azurekeyvault", &elsewhere), ["CARACAL_AZURE_TENANT_ID"]);
}

#[test]
fn aws_keys_come_in_pairs_or_from_the_container_s_platform() {
    let region = ("CARACAL_AWS_REGION", "eu-central-1");
    let wrong = |more: &[(&str, &str)]| wrong("awssecretsmanager", &[&[region], more].concat());
    assert_eq!(wrong(&[("AWS_ACCESS_KEY_ID", "A")]), ["AWS_SECRET_ACCESS_KEY"]);
    assert_eq!(wrong(&[("AWS_SECRET_ACCESS_KEY", "s3cret")]), ["AWS_ACCESS_KEY_ID"]);
    let (relative, full) = ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    assert!(wrong(&[(relative, "/v2/credentials/x")]).is_empty());
    assert_eq!(wrong(&[(relative, "@evil.example/")]), [relative]);
    assert!(wrong(&[(full, "http://169.254.170.23/v1/credentials")]).is_empty());
    for bad in ["http://169.254.169.254/latest", "http://keys.internal/"] {
        assert_eq!(wrong(&[(full, bad)]), [full], "{bad}");
    }
    // Read when keys are asked for, and not before.
    let file = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/nowhere/token");
    assert!(wrong(&[(full, "https://keys.internal/x"), file]).is_empty());
    let endpoint = "AWS_ENDPOINT_URL_SECRETS_MANAGER";
    assert_eq!(wrong(&[AWS[1], AWS[2], (endpoint, "http://10.0.0.1")]), [endpoint]);
    assert_eq!(
        super::backends::wrong("awssecretsmanager", &[("AWS_REGION", "Frankfurt"), AWS[1], AWS[2]]),
        ["CARACAL_AWS_REGION"]
    );
    let both = [region, ("AWS_REGION", "us-east-1"), AWS[1], AWS[2]];
    let SecretBackendSettings::Aws(settings) = read("awssecretsmanager", &both).unwrap() else { panic!() };
    assert_eq!(settings.endpoint.as_str(), "https://secretsmanager.eu-central-1.amazonaws.com");
}

#[test]
fn a_google_key_file_is_read_at_start_and_its_fault_is_named_without_its_content() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let project = ("CARACAL_GCP_PROJECT", "project-1");
    for (name, content, why) in [
        ("no.json", "k3y", "is not a JSON object"),
        ("user.json", r#"{"type":"authorized_user","refresh_token":"k3y"}"#, "`service_account`"),
        (
            "key.json",
            r#"{"type":"service_account","client_email":"a@b","private_key":"k3y","token_uri":"https://t.example/"}"#,
            "`private_key`",
        ),
    ] {
        let path = write(name, content);
        let mistakes = read("gcpsecretmanager", &[project, ("GOOGLE_APPLICATION_CREDENTIALS", &path)]).err().unwrap();
        let [(named, what)] = &mistakes[..] else { panic!("{mistakes:?}") };
        assert!(named == "GOOGLE_APPLICATION_CREDENTIALS" && what.contains(why) && what.contains(name), "{what}");
        assert!(!what.contains("k3y"), "{what}");
    }
    let missing =
        [project, ("CARACAL_GCP_CREDENTIALS_FILE", "/nowhere/key.json"), ("GOOGLE_APPLICATION_CREDENTIALS", "/x")];
    let mistakes = read("gcpsecretmanager", &missing).err().unwrap();
    assert!(mistakes[0].0 == "CARACAL_GCP_CREDENTIALS_FILE" && mistakes[0].1.starts_with("can't read"), "{mistakes:?}");
    assert_eq!(wrong("gcpsecretmanager", &[("CARACAL_GCP_PROJECT", "projects/x")]), ["CARACAL_GCP_PROJECT"]);
}

#[test]
fn a_backend_s_secret_may_stand_in_a_file_and_an_inline_one_wins() {
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("token");
    std::fs::write(&file, "from-the-file\n").unwrap();
    let path = file.to_str().unwrap();
    let token = |given: &[(&str, &str)]| {
        let project = ("CARACAL_INFISICAL_PROJECT_ID", "p-1");
        match read("infisical", &[&[project], given].concat()) {
            Ok(SecretBackendSettings::Infisical(settings)) => Ok(settings.token.expose().clone()),
            Ok(other) => panic!("{other:?}"),
            Err(mistakes) => Err(mistakes[0].0.clone()),
        }
    };
    let in_file = ("CARACAL_INFISICAL_TOKEN_FILE", path);
    assert_eq!(token(&[in_file]), Ok("from-the-file".to_owned()));
    assert_eq!(token(&[in_file, ("CARACAL_INFISICAL_TOKEN", "inline")]), Ok("inline".to_owned()));
    std::fs::write(&file, "\n").unwrap();
    assert_eq!(token(&[in_file]), Err("CARACAL_INFISICAL_TOKEN_FILE".to_owned()));
    let secret = ("CARACAL_AZURE_CLIENT_SECRET_FILE", path);
    assert_eq!(wrong("azurekeyvault", &[&AZURE[..3], &[secret]].concat()), ["CARACAL_AZURE_CLIENT_SECRET_FILE"]);
}
