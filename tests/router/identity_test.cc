// What identifies a request: the bytes of its canonical encoding, the digest over them, and which
// of its fields count.
#include "router/api/identity.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "common/process.h"
#include "router/api/canonical_encoding.h"

namespace fathom::router {
namespace {

std::string Hex(const std::string& bytes) {
  std::string hex;
  for (const char c : bytes) hex += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return hex;
}

// A field: its tag, the length of its value, the value.
std::string FieldHex(int tag, const std::string& value) {
  return fmt::format("{:02x}{:02x}00000000000000{}", tag, value.size() / 2, value);
}
std::string NumberHex(int64_t number) {
  std::string hex;
  for (int i = 0; i < 8; ++i) {
    hex += fmt::format("{:02x}",
                       static_cast<unsigned>(static_cast<uint64_t>(number) >> (8 * i)) & 0xff);
  }
  return hex;
}
std::string SizedHex(const std::string& value) {
  return fmt::format("{:02x}00000000000000{}", value.size() / 2, value);
}

GenerateRequest Chat() {
  GenerateRequest request;
  ChatPrompt chat;
  chat.messages.push_back({.role = "user", .content = "Hi"});
  request.prompt = chat;
  return request;
}

// Two requests that together use all fields. The test writes out their bytes from the description
// in the header.
TEST(CanonicalEncoding, GoldenBytes) {
  EXPECT_EQ(CanonicalEncoding({}), "");
  GenerateRequest request;
  request.params.model = "m";
  request.params.sampling.temperature = 0.5f;
  request.params.sampling.top_k = 0;
  request.params.sampling.logit_bias = {{3, -1.0f}};
  request.params.stop.max_tokens = 258;
  request.params.stop.strings = {"ab", ""};
  request.params.stop.token_ids = {-1};
  request.params.stop.ignore_eos = true;
  request.params.output.text = false;
  request.prompt = std::string("x");
  const std::string bias = FieldHex(1, NumberHex(3)) + FieldHex(2, "000080bf");
  EXPECT_EQ(Hex(CanonicalEncoding(request)),
            FieldHex(1, "6d") +
                FieldHex(2, FieldHex(1, "0000003f") + FieldHex(2, NumberHex(0)) +
                                FieldHex(8, SizedHex(bias))) +
                FieldHex(3, FieldHex(1, "0201000000000000") +
                                FieldHex(3, SizedHex("6162") + SizedHex("")) +
                                FieldHex(4, SizedHex("ffffffffffffffff")) + FieldHex(5, "01")) +
                FieldHex(4, FieldHex(4, "00")) + FieldHex(5, "78"));

  request = Chat();
  auto& chat = std::get<ChatPrompt>(request.prompt);
  chat.messages[0].tool_calls = {{"i", "n", "{}"}};
  chat.enable_thinking = false;
  chat.continue_final_message = true;
  const std::string call = FieldHex(1, "69") + FieldHex(2, "6e") + FieldHex(3, "7b7d");
  const std::string message =
      FieldHex(1, "75736572") + FieldHex(2, "4869") + FieldHex(4, SizedHex(call));
  EXPECT_EQ(Hex(CanonicalEncoding(request)),
            FieldHex(7, FieldHex(1, SizedHex(message)) + FieldHex(3, "00") + FieldHex(7, "01")));
}

// The expected ids come from another program (Python's hashlib and struct), which was written from
// the description in the headers.
TEST(Identity, GoldenIds) {
  EXPECT_EQ(IdFromKey("t", "k", {}), "ba986ec8f0220bc08729e4366c174ac5");
  EXPECT_EQ(IdFromKey("default", "once", Chat()), "c76d46c3f806362b55aa29b381bc1aaf");
}

// The test makes the hashed bytes itself, from the description in the header.
TEST(Identity, BytesAreTakenAsDocumented) {
  // The version, then 1,0,0,0,0,0,0,0,'t', 1,0,...,'k', 0,0,...: each part after its length.
  const std::string parts =
      std::string("\x01\0\0\0\0\0\0\0t\x01\0\0\0\0\0\0\0k\0\0\0\0\0\0\0\0", 26);
  EXPECT_EQ(IdFromKey("t", "k", {}), Sha256Hex("\x01" + parts).substr(16, 32));
  const std::string hex = Sha256Hex(parts.substr(0, 18));
  std::string little_endian;
  for (int byte = 7; byte >= 0; --byte) little_endian += hex.substr(2 * byte, 2);
  EXPECT_EQ(SeedFromId("t", "k"), std::stoull(little_endian, nullptr, 16));
}

// The name of a change of a request, and the function that makes the change.
using Change = std::pair<std::string, std::function<void(GenerateRequest*, ChatPrompt*)>>;

std::vector<Change> ChangesOfTheRequest() {
  std::vector<Change> changes = {
      {"", [](auto*, auto*) {}},
      {"model", [](auto* r, auto*) { r->params.model = "m"; }},
      {"logit_bias",
       [](auto* r, auto*) {
         r->params.sampling.logit_bias = {{0, 0.f}};
       }},
      {"logit_bias id",
       [](auto* r, auto*) {
         r->params.sampling.logit_bias = {{1, 0.f}};
       }},
      {"logit_bias value",
       [](auto* r, auto*) {
         r->params.sampling.logit_bias = {{0, 1.f}};
       }},
      {"n", [](auto* r, auto*) { r->params.sampling.n = 0; }},
      {"bad_words", [](auto* r, auto*) { r->params.sampling.bad_words = {""}; }},
      {"allowed_token_ids", [](auto* r, auto*) { r->params.sampling.allowed_token_ids = {0}; }},
      {"max_tokens", [](auto* r, auto*) { r->params.stop.max_tokens = 0; }},
      {"min_tokens", [](auto* r, auto*) { r->params.stop.min_tokens = 0; }},
      {"strings", [](auto* r, auto*) { r->params.stop.strings = {""}; }},
      {"two strings",
       [](auto* r, auto*) {
         r->params.stop.strings = {"", ""};
       }},
      {"strings ab c",
       [](auto* r, auto*) {
         r->params.stop.strings = {"ab", "c"};
       }},
      {"strings a bc",
       [](auto* r, auto*) {
         r->params.stop.strings = {"a", "bc"};
       }},
      {"token_ids", [](auto* r, auto*) { r->params.stop.token_ids = {0}; }},
      {"guided", [](auto* r, auto*) { r->params.guided.emplace(); }},
      {"guided kind",
       [](auto* r, auto*) { r->params.guided.emplace().spec.kind = GrammarKind::kRegex; }},
      {"guided text", [](auto* r, auto*) { r->params.guided.emplace().spec.text = "a"; }},
      {"guided choices", [](auto* r, auto*) { r->params.guided.emplace().spec.choices = {"a"}; }},
      {"guided open", [](auto* r, auto*) { r->params.guided.emplace().spec.closed = false; }},
      {"ignore_eos", [](auto* r, auto*) { r->params.stop.ignore_eos = true; }},
      {"include_stop", [](auto* r, auto*) { r->params.stop.include_stop = true; }},
      {"logprobs", [](auto* r, auto*) { r->params.output.logprobs = 0; }},
      {"prompt_logprobs", [](auto* r, auto*) { r->params.output.prompt_logprobs = 0; }},
      {"ids", [](auto* r, auto*) { r->params.output.ids = false; }},
      {"ids true", [](auto* r, auto*) { r->params.output.ids = true; }},
      {"text", [](auto* r, auto*) { r->params.output.text = false; }},
      {"keep_special", [](auto* r, auto*) { r->params.output.keep_special = true; }},
      {"token_budget", [](auto* r, auto*) { r->params.thinking.token_budget = 0; }},
      {"effort", [](auto* r, auto*) { r->params.thinking.effort = "low"; }},
      {"no prompt", [](auto* r, auto*) { r->prompt = std::monostate(); }},
      {"an empty text", [](auto* r, auto*) { r->prompt = std::string(); }},
      {"text Hi", [](auto* r, auto*) { r->prompt = std::string("Hi"); }},
      {"no ids", [](auto* r, auto*) { r->prompt = std::vector<TokenId>(); }},
      {"ids 0", [](auto* r, auto*) { r->prompt = std::vector<TokenId>{0}; }},
  };
  ForEachSamplingField([&](const SamplingField& row, auto, auto option) {
    for (const int number : {0, 1}) {
      changes.emplace_back(
          fmt::format("{} {}", row.path, number),
          [option, number](auto* r, auto*) { r->params.sampling.*option = number; });
    }
  });
  return changes;
}

std::vector<Change> ChangesOfTheChat() {
  return {
      {"role", [](auto*, auto* c) { c->messages[0].role = "tool"; }},
      {"content", [](auto*, auto* c) { c->messages[0].content = ""; }},
      {"no content", [](auto*, auto* c) { c->messages[0].content.reset(); }},
      {"content_parts", [](auto*, auto* c) { c->messages[0].content_parts = {""}; }},
      {"tool_calls", [](auto*, auto* c) { c->messages[0].tool_calls = {{}}; }},
      {"tool call id", [](auto*, auto* c) { c->messages[0].tool_calls = {{.id = "a"}}; }},
      {"tool call name", [](auto*, auto* c) { c->messages[0].tool_calls = {{.name = "a"}}; }},
      {"arguments", [](auto*, auto* c) { c->messages[0].tool_calls = {{.arguments_json = "a"}}; }},
      {"tool_call_id", [](auto*, auto* c) { c->messages[0].tool_call_id = "a"; }},
      {"name", [](auto*, auto* c) { c->messages[0].name = "a"; }},
      {"reasoning", [](auto*, auto* c) { c->messages[0].reasoning = ""; }},
      {"a second message", [](auto*, auto* c) { c->messages.push_back({}); }},
      {"tools_json", [](auto*, auto* c) { c->tools_json = "[]"; }},
      {"tool_choice none", [](auto*, auto* c) { c->tool_choice.kind = ToolChoice::Kind::kNone; }},
      {"tool_choice required",
       [](auto*, auto* c) { c->tool_choice.kind = ToolChoice::Kind::kRequired; }},
      {"tool_choice named", [](auto*, auto* c) { c->tool_choice.kind = ToolChoice::Kind::kNamed; }},
      {"tool_choice name", [](auto*, auto* c) { c->tool_choice.name = "f"; }},
      {"one call", [](auto*, auto* c) { c->tool_choice.parallel = false; }},
      {"enable_thinking", [](auto*, auto* c) { c->enable_thinking = false; }},
      {"add_generation_prompt", [](auto*, auto* c) { c->add_generation_prompt = false; }},
      {"allow_special", [](auto*, auto* c) { c->allow_special = true; }},
      {"kwargs_json", [](auto*, auto* c) { c->kwargs_json = "{}"; }},
      {"continue_final_message", [](auto*, auto* c) { c->continue_final_message = true; }},
  };
}

// A change of any field, and any value of a field, makes another id. The exceptions are the fields
// that a repetition may change.
TEST(Identity, EveryFieldCounts) {
  std::vector<Change> changes = ChangesOfTheRequest();
  for (const Change& change : ChangesOfTheChat()) changes.push_back(change);
  std::map<std::string, std::string> seen;  // Maps each id to the name of its change.
  for (const auto& [name, change] : changes) {
    GenerateRequest request = Chat();
    ChatPrompt chat = std::get<ChatPrompt>(request.prompt);
    change(&request, &chat);
    if (std::holds_alternative<ChatPrompt>(request.prompt)) request.prompt = chat;
    const auto [known, added] = seen.emplace(IdFromKey("t", "k", request), name);
    EXPECT_TRUE(added) << "'" << name << "' and '" << known->second << "' are one id";
  }
  const std::string id = IdFromKey("t", "k", Chat());
  EXPECT_EQ(id.size(), 32u);
  // Each part stands after its length, so moving a byte from one part to the next makes another id.
  EXPECT_NE(IdFromKey("tk", "", Chat()), id);
  EXPECT_NE(IdFromKey("t", "l", Chat()), id);
  EXPECT_NE(IdFromKey("u", "k", Chat()), id);
  GenerateRequest repeated = Chat();
  repeated.params.request_id = "told";
  repeated.params.sampling.seed = 5;
  repeated.params.deadline_ms = 100;
  repeated.params.priority = -3;
  repeated.params.cache = {.enabled = false, .salt = "salt"};
  EXPECT_EQ(IdFromKey("t", "k", repeated), id);
}

TEST(Identity, WhatTheRequestSaysTakesPrecedence) {
  GenerateRequest request = Chat();
  const Identity drawn = IdentityOf("t", request);
  EXPECT_EQ(drawn.key.tenant, "t");
  EXPECT_NE(drawn.key.request_id, IdentityOf("t", request).key.request_id);
  request.params.idempotency_key = "k";
  EXPECT_EQ(IdentityOf("t", request).key.request_id, IdFromKey("t", "k", request));
  request.params.request_id = "mine";
  request.params.sampling.seed = 5;
  EXPECT_EQ(IdentityOf("t", request).key.request_id, "mine");
  EXPECT_EQ(IdentityOf("t", request).seed, 5u);
}

// A client asks for the same answer if it repeats the id, the key or the seed.
TEST(Identity, ARepetitionUnderTheToldIdHasTheSameSeed) {
  for (const char* key : {"", "once"}) {
    GenerateRequest request = Chat();
    request.params.idempotency_key = key;
    const Identity first = IdentityOf("t", request);
    EXPECT_EQ(first.seed, SeedFromId("t", first.key.request_id));
    EXPECT_NE(first.seed, SeedFromId("u", first.key.request_id));
    request.params.request_id = first.key.request_id;
    EXPECT_EQ(IdentityOf("t", request).seed, first.seed) << "with key '" << key << "'";
    request.params.idempotency_key.clear();
    EXPECT_EQ(IdentityOf("t", request).seed, first.seed) << "by the id alone";
  }
}

}  // namespace
}  // namespace fathom::router
