#include "router/frontend/http/guided_fields.h"

#include <utility>

#include "common/reason.h"

namespace fathom::router {
namespace {

constexpr char kOneOfThem[] =
    "send one of response_format, structured_outputs and the guided_ fields";

absl::Status OutOfRange(absl::Status status, const std::string& field) {
  return WithReason(std::move(status), Reason::kOutOfRange, field);
}

void Set(FieldReader* body, PublicRequest* request, std::string field, GrammarSpec spec) {
  if (request->guided) {
    return body->Fail(OutOfRange(
        Invalid("{} and {} are both set; {}", request->guided->field, field, kOneOfThem), field));
  }
  request->guided = {std::move(spec), std::move(field)};
}

// A schema as an object, or as a text that has one.
void ReadSchema(FieldReader* reader, FieldReader* body, const char* name, bool closed,
                PublicRequest* request) {
  const JsonValue* value = reader->Find(name);
  if (value == nullptr) return;
  const std::string* text = value->AsString();
  if (text == nullptr && value->AsObject() == nullptr && value->AsBool() == nullptr) {
    return reader->FailType(name, *value, "a JSON Schema");
  }
  Set(body, request, reader->PathOf(name),
      {.kind = GrammarKind::kJsonSchema,
       .text = text != nullptr ? *text : ToJsonText(*value),
       .choices = {},
       .closed = closed});
}

void ReadText(FieldReader* reader, FieldReader* body, const char* name, GrammarKind kind,
              PublicRequest* request) {
  std::optional<std::string> text;
  reader->Take(name, &text);
  if (text) Set(body, request, reader->PathOf(name), {.kind = kind, .text = *std::move(text)});
}

void ReadChoice(FieldReader* reader, FieldReader* body, const char* name, PublicRequest* request) {
  if (!reader->Has(name)) return;
  GrammarSpec spec{.kind = GrammarKind::kChoice};
  reader->Take(name, &spec.choices);
  Set(body, request, reader->PathOf(name), std::move(spec));
}

// OpenAI's {"type": "json_schema", "json_schema": {"name", "schema", "strict"}}.
void ReadJsonSchemaFormat(FieldReader* format, FieldReader* body, PublicRequest* request) {
  const JsonValue* value = format->Find("json_schema");
  if (value == nullptr || value->AsObject() == nullptr) {
    return format->Fail(
        OutOfRange(Invalid("response_format.json_schema is missing; it must be an object with name "
                           "and schema"),
                   "response_format.json_schema"));
  }
  FieldReader schema(*value, "response_format.json_schema");
  schema.Accept("name");
  schema.Accept("description");
  std::optional<bool> strict;
  schema.Take("strict", &strict);
  if (schema.Has("schema")) {
    ReadSchema(&schema, body, "schema", strict.value_or(true), request);
  } else {
    Set(body, request, "response_format.json_schema", {.kind = GrammarKind::kJsonObject});
  }
  if (const absl::Status status = schema.Finish(); !status.ok()) format->Fail(status);
}

void ReadResponseFormat(FieldReader* body, PublicRequest* request) {
  const JsonValue* value = body->Find("response_format");
  if (value == nullptr) return;
  if (value->AsObject() == nullptr) return body->FailType("response_format", *value, "an object");
  FieldReader format(*value, "response_format");
  std::string type;
  format.Take("type", &type);
  if (type == "json_object") {
    Set(body, request, "response_format", {.kind = GrammarKind::kJsonObject});
  } else if (type == "json_schema") {
    ReadJsonSchemaFormat(&format, body, request);
  } else if (type == "structural_tag") {
    // The whole object is the structural tag.
    Set(body, request, "response_format",
        {.kind = GrammarKind::kStructuralTag, .text = ToJsonText(*value)});
    return;
  } else if (type != "text" && format.ok()) {
    format.Fail(OutOfRange(Invalid("response_format.type is '{}'; it must be text, json_object, "
                                   "json_schema or structural_tag",
                                   type),
                           "response_format.type"));
  }
  if (const absl::Status status = format.Finish(); !status.ok()) body->Fail(status);
}

void ReadStructuredOutputs(FieldReader* body, PublicRequest* request) {
  const JsonValue* value = body->Find("structured_outputs");
  if (value == nullptr) return;
  if (value->AsObject() == nullptr) {
    return body->FailType("structured_outputs", *value, "an object");
  }
  FieldReader outputs(*value, "structured_outputs");
  std::optional<bool> closed;
  outputs.Take("disable_additional_properties", &closed);
  ReadSchema(&outputs, body, "json", closed.value_or(true), request);
  ReadText(&outputs, body, "regex", GrammarKind::kRegex, request);
  ReadText(&outputs, body, "grammar", GrammarKind::kEbnf, request);
  ReadText(&outputs, body, "structural_tag", GrammarKind::kStructuralTag, request);
  ReadChoice(&outputs, body, "choice", request);
  std::optional<bool> object;
  outputs.Take("json_object", &object);
  if (object.value_or(false)) {
    Set(body, request, "structured_outputs.json_object", {.kind = GrammarKind::kJsonObject});
  }
  outputs.Refuse("whitespace_pattern", "leave it out");
  outputs.Only("disable_any_whitespace", {"false"}, "leave it out");
  outputs.Only("disable_fallback", {"true", "false"}, "there is one grammar engine");
  if (const absl::Status status = outputs.Finish(); !status.ok()) body->Fail(status);
}

}  // namespace

void ReadGuided(FieldReader* body, PublicRequest* request) {
  ReadResponseFormat(body, request);
  ReadStructuredOutputs(body, request);
  ReadSchema(body, body, "guided_json", /*closed=*/true, request);
  ReadText(body, body, "guided_regex", GrammarKind::kRegex, request);
  ReadText(body, body, "guided_grammar", GrammarKind::kEbnf, request);
  ReadChoice(body, body, "guided_choice", request);
  std::optional<bool> object;
  body->Take("guided_json_object", &object);
  if (object.value_or(false)) {
    Set(body, request, "guided_json_object", {.kind = GrammarKind::kJsonObject});
  }
  body->Only("guided_decoding_backend", {"\"auto\"", "\"xgrammar\""}, "leave it out");
  body->Refuse("guided_whitespace_pattern", "leave it out");
}

}  // namespace fathom::router
