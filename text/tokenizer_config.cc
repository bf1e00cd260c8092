// Reads the parts of tokenizer_config.json that are used here.
#include <algorithm>
#include <charconv>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "text/tokenizer_sections.h"

namespace fathom {
namespace {

// Reads a special token of tokenizer_config.json: a string or an object with `content`.
absl::StatusOr<std::string> ReadTokenText(JsonFields* fields, const std::string& key) {
  const auto found = fields->Find(key);
  if (!found) return std::string();
  if (found->value.is_string()) return found->value.get<std::string>();
  if (found->value.is_object() && found->value.contains("content") &&
      found->value["content"].is_string()) {
    return found->value["content"].get<std::string>();
  }
  return found->Refuse("expected a token's text");
}

// Tokens that only tokenizer_config.json lists (added_tokens_decoder: id to token) are added tokens
// too. For a token in both files, tokenizer.json counts.
absl::Status ReadTokensOfConfig(const JsonAt& at, TokenizerSpec* spec) {
  if (!at.value.is_object()) return at.Refuse("expected an object of tokens by id");
  absl::flat_hash_map<std::string, TokenId> ids;
  absl::flat_hash_set<TokenId> taken;
  for (const AddedToken& token : spec->added_tokens) {
    ids.emplace(token.content, token.id);
    taken.insert(token.id);
  }
  for (const auto& [key, value] : at.value.items()) {
    const JsonAt element = at.Child(key, value);
    TokenId id = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
    if (error != std::errc() || end != key.data() + key.size() || id < 0 || id > kTokenIdMax) {
      return element.Refuse(fmt::format("the key must be a token id, 0 to {}", kTokenIdMax));
    }
    if (!value.is_object()) return element.Refuse("expected an object with `content`");
    Json with_id = value;
    with_id["id"] = static_cast<uint32_t>(id);
    FATHOM_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken({with_id, element.where}));
    if (const auto known = ids.find(token.content); known != ids.end()) {
      if (known->second == id) continue;
      return element.Refuse(fmt::format(
          "tokenizer.json gives this content the id {}; both must agree", known->second));
    }
    const bool in_vocab = id < static_cast<TokenId>(spec->vocab_spellings.size()) &&
                          !spec->vocab_spellings[id].empty();
    if (!taken.insert(id).second || (in_vocab && spec->vocab_spellings[id] != token.content)) {
      return element.Refuse("in tokenizer.json this id belongs to another token");
    }
    ids.emplace(token.content, id);
    spec->added_tokens.push_back(std::move(token));
  }
  std::sort(spec->added_tokens.begin(), spec->added_tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadTokenizerConfig(const JsonAt& at, TokenizerSpec* spec) {
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  FATHOM_ASSIGN_OR_RETURN(spec->bos_token, ReadTokenText(&fields, "bos_token"));
  FATHOM_ASSIGN_OR_RETURN(spec->eos_token, ReadTokenText(&fields, "eos_token"));
  if (const auto tokens = fields.Find("added_tokens_decoder")) {
    FATHOM_RETURN_IF_ERROR(ReadTokensOfConfig(*tokens, spec));
  }
  if (fields.Find("add_bos_token")) {
    FATHOM_ASSIGN_OR_RETURN(spec->add_bos_token, fields.Bool("add_bos_token"));
  }
  if (fields.Find("add_eos_token")) {
    FATHOM_ASSIGN_OR_RETURN(spec->add_eos_token, fields.Bool("add_eos_token"));
  }
  FATHOM_ASSIGN_OR_RETURN(const bool split_special, fields.Bool("split_special_tokens", false));
  if (split_special) return fields.Find("split_special_tokens")->Refuse("supported is false");
  return absl::OkStatus();
}

}  // namespace fathom
