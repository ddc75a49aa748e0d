//! The API's own description: the OpenAPI document, a page to browse it without any network, and what each error means.

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::{Json, Router, routing};
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityScheme};
use utoipa::openapi::{Content, Info, OpenApi, Ref, ResponseBuilder, Tag};

use super::Api;
use super::error::Result;

/// What every error means.
const ERRORS: &str = include_str!("../../docs/errors.md");

/// The OpenAPI document of this service.
#[utoipa::path(get, path = "/v1/openapi.json", tag = "discovery", operation_id = "show_openapi", security(()),
    responses((status = 200, description = "This document.", body = Object)))]
pub(super) async fn openapi(State(api): State<Api>) -> Json<OpenApi> {
    Json(api.openapi.clone())
}

/// What each error and each reason of a failed execution means, and what to do about it.
#[utoipa::path(get, path = "/v1/errors", tag = "discovery", operation_id = "show_errors", security(()),
    responses((status = 200, description = "The list, as Markdown.", body = String, content_type = "text/markdown")))]
pub(super) async fn errors() -> Response {
    ([(header::CONTENT_TYPE, "text/markdown; charset=utf-8")], ERRORS).into_response()
}

/// The page to browse the document: Swagger UI, which is part of the program.
pub(super) fn browser() -> Router<Api> {
    Router::new()
        .route("/v1/docs", routing::get(|| async { Redirect::permanent("docs/") }))
        .route("/v1/docs/", routing::get(|api| asset(api, Path(String::new()))))
        .route("/v1/docs/{*file}", routing::get(asset))
}

async fn asset(State(_): State<Api>, Path(file): Path<String>) -> Result<Response> {
    // Relative, so that it holds behind a proxy that puts a prefix before every path.
    let config = std::sync::Arc::new(utoipa_swagger_ui::Config::from("../openapi.json"));
    let file = if file.is_empty() { "index.html" } else { &file };
    Ok(match utoipa_swagger_ui::serve(file, config) {
        Ok(Some(file)) => ([(header::CONTENT_TYPE, file.content_type)], file.bytes.into_owned()).into_response(),
        Ok(None) => StatusCode::NOT_FOUND.into_response(),
        Err(error) => return Err(super::error::ApiError::internal(error.to_string())),
    })
}

/// Adds what is the same for every operation: the errors, and the headers that say who calls.
pub(super) fn complete(openapi: &mut OpenApi) {
    let mut info = Info::new("Lambda on OpenStack", super::version::MAXIMUM);
    info.description = Some(
        "Functions as a service. Conventions are those of the OpenStack API special interest group; what each error \
         means is at /v1/errors."
            .to_owned(),
    );
    openapi.info = info;
    openapi.tags = Some(
        [
            ("functions", "Code with a name, and calling it."),
            ("triggers", "Which events go to which function."),
            ("events", "Events on their way to functions."),
            ("executions", "What became of each event."),
            ("runtimes", "What functions can be written in."),
            ("operation", "What the service runs on."),
            ("discovery", "The service itself. Needs no identity."),
        ]
        .into_iter()
        .map(|(name, description)| {
            let mut tag = Tag::new(name);
            tag.description = Some(description.to_owned());
            tag
        })
        .collect(),
    );
    let components = openapi.components.get_or_insert_default();
    components.security_schemes.insert(
        "project".to_owned(),
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "X-Project-Id",
            "The project, where [api] auth_strategy is noauth.",
        )))
        .into(),
    );
    components.security_schemes.insert(
        "token".to_owned(),
        SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(
            "X-Auth-Token",
            "A token of Keystone's for the project, where [api] auth_strategy is keystone.",
        )))
        .into(),
    );
    // One or the other.
    openapi.security = Some(
        ["token", "project"]
            .map(|scheme| utoipa::openapi::security::SecurityRequirement::new(scheme, [] as [&str; 0]))
            .to_vec(),
    );
    for item in openapi.paths.paths.values_mut() {
        let operations: [&mut Option<Operation>; 5] =
            [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
        for operation in operations.into_iter().flatten() {
            let error = ResponseBuilder::new()
                .description("What went wrong.")
                .content("application/json", Content::new(Some(Ref::from_schema_name("ErrorBody"))))
                .build();
            operation.responses.responses.insert("default".to_owned(), error.into());
        }
    }
}
