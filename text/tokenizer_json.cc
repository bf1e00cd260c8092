#include "text/tokenizer_json.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "common/status.h"
#include "common/string_hash.h"
#include "common/utf8.h"
#include "text/byte_level.h"
#include "text/json_fields.h"
#include "text/tokenizer_sections.h"

namespace fathom {
namespace {

using Vocab = absl::flat_hash_map<std::string, TokenId, StringHash, StringEq>;

// The pattern that ByteLevel's `use_regex` splits by.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

// ---- added_tokens ----

absl::StatusOr<std::vector<AddedToken>> ReadAddedTokens(const JsonAt& at, const Vocab& vocab) {
  std::vector<AddedToken> tokens;
  if (at.value.is_null()) return tokens;
  if (!at.value.is_array()) return at.Refuse("expected a list of tokens");
  absl::flat_hash_set<TokenId> ids;
  for (const auto& [content, id] : vocab) ids.insert(id);
  absl::flat_hash_set<std::string> contents;
  for (size_t i = 0; i < at.value.size(); ++i) {
    const JsonAt element = at.Element(i);
    FATHOM_ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(element));
    const auto known = vocab.find(token.content);
    if (known != vocab.end() && known->second != token.id) {
      return element.Refuse(
          fmt::format("model.vocab gives this content the id {}; both must agree", known->second));
    }
    if (known == vocab.end() && !ids.insert(token.id).second) {
      return element.Refuse("this id belongs to another token");
    }
    if (!contents.insert(token.content).second)
      return element.Refuse("this content was there before");
    tokens.push_back(std::move(token));
  }
  std::sort(tokens.begin(), tokens.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return tokens;
}

// ---- normalizer, pre_tokenizer, decoder ----

absl::Status ReadNormalizer(const JsonAt& at, TokenizerSpec* spec) {
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  FATHOM_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "NFC") {
    spec->nfc = true;
  } else if (type == "Sequence") {
    const std::optional<JsonAt> list = fields.Find("normalizers");
    if (!list || !list->value.is_array()) return at.Refuse("expected a list `normalizers`");
    for (size_t i = 0; i < list->value.size(); ++i) {
      FATHOM_RETURN_IF_ERROR(ReadNormalizer(list->Element(i), spec));
    }
  } else {
    return at.Child("type", at.value["type"]).Refuse("supported are NFC and Sequence");
  }
  return fields.Done();
}

absl::StatusOr<SplitSpec> ReadSplit(JsonFields* fields) {
  SplitSpec split;
  const std::optional<JsonAt> pattern = fields->Find("pattern");
  if (!pattern) return fields->at().Refuse("expected a pattern");
  FATHOM_ASSIGN_OR_RETURN(JsonFields choice, JsonFields::Open(*pattern));
  split.is_regex = pattern->value.contains("Regex");
  FATHOM_ASSIGN_OR_RETURN(split.pattern, choice.String(split.is_regex ? "Regex" : "String"));
  FATHOM_RETURN_IF_ERROR(choice.Done());
  if (split.pattern.empty()) return pattern->Refuse("expected a pattern that is not empty");
  static const std::unordered_map<std::string, SplitBehavior> kBehaviors = {
      {"Isolated", SplitBehavior::kIsolated},
      {"Removed", SplitBehavior::kRemoved},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext},
      {"Contiguous", SplitBehavior::kContiguous}};
  FATHOM_ASSIGN_OR_RETURN(const std::string behavior, fields->String("behavior"));
  const auto found = kBehaviors.find(behavior);
  if (found == kBehaviors.end()) {
    return fields->Find("behavior")
        ->Refuse(
            "supported are Isolated, Removed, MergedWithPrevious, MergedWithNext and Contiguous");
  }
  split.behavior = found->second;
  FATHOM_ASSIGN_OR_RETURN(split.invert, fields->Bool("invert", false));
  // A bad pattern is refused here, where its place in the file is known.
  const absl::Status status =
      (split.is_regex ? Regex::Compile(split.pattern) : Regex::CompileLiteral(split.pattern))
          .status();
  if (!status.ok()) return Annotate(status, pattern->where);
  return split;
}

absl::Status ReadPreTokenizer(const JsonAt& at, bool* byte_level, PreTokenizerSpec* spec) {
  if (*byte_level) return at.Refuse("nothing may follow ByteLevel");
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  FATHOM_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    const std::optional<JsonAt> list = fields.Find("pretokenizers");
    if (!list || !list->value.is_array()) return at.Refuse("expected a list `pretokenizers`");
    for (size_t i = 0; i < list->value.size(); ++i) {
      FATHOM_RETURN_IF_ERROR(ReadPreTokenizer(list->Element(i), byte_level, spec));
    }
  } else if (type == "Split") {
    FATHOM_ASSIGN_OR_RETURN(SplitSpec split, ReadSplit(&fields));
    spec->splits.push_back(std::move(split));
  } else if (type == "Digits") {
    FATHOM_ASSIGN_OR_RETURN(const bool individual, fields.Bool("individual_digits", false));
    spec->splits.push_back({.pattern = individual ? "\\p{N}" : "\\p{N}+"});
  } else if (type == "ByteLevel") {
    *byte_level = true;
    fields.Ignore("trim_offsets");  // It moves offsets, which are not used, and no ids.
    FATHOM_ASSIGN_OR_RETURN(spec->add_prefix_space, fields.Bool("add_prefix_space", true));
    FATHOM_ASSIGN_OR_RETURN(const bool use_regex, fields.Bool("use_regex", true));
    if (use_regex) spec->byte_level_split = SplitSpec{.pattern = std::string(kByteLevelPattern)};
  } else {
    return at.Child("type", at.value["type"])
        .Refuse("supported are Split, Digits, ByteLevel and Sequence");
  }
  return fields.Done();
}

// Sets *byte_level if the decoder is ByteLevel. Other accepted decoders (Fuse) change nothing after
// it.
absl::Status ReadDecoder(const JsonAt& at, bool* byte_level) {
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  FATHOM_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    const std::optional<JsonAt> list = fields.Find("decoders");
    if (!list || !list->value.is_array()) return at.Refuse("expected a list `decoders`");
    for (size_t i = 0; i < list->value.size(); ++i) {
      FATHOM_RETURN_IF_ERROR(ReadDecoder(list->Element(i), byte_level));
    }
  } else if (type == "ByteLevel" && !*byte_level) {
    *byte_level = true;
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) fields.Ignore(key);
  } else if (type != "Fuse" || !*byte_level) {
    return at.Refuse("supported is ByteLevel, alone or in a Sequence");
  }
  return fields.Done();
}

// ---- post_processor ----

absl::Status ReadTemplate(JsonFields* fields, TokenizerSpec* spec) {
  fields->Ignore("pair");  // Only one text is encoded at a time.
  const std::optional<JsonAt> specials = fields->Find("special_tokens");
  const std::optional<JsonAt> single = fields->Find("single");
  if (!single || !single->value.is_array()) return fields->at().Refuse("expected a list `single`");
  bool text_seen = false;
  for (size_t i = 0; i < single->value.size(); ++i) {
    const JsonAt item = single->Element(i);
    FATHOM_ASSIGN_OR_RETURN(JsonFields kinds, JsonFields::Open(item));
    const std::optional<JsonAt> sequence = kinds.Find("Sequence");
    const std::optional<JsonAt> token = kinds.Find("SpecialToken");
    FATHOM_RETURN_IF_ERROR(kinds.Done());
    if (sequence && !token && !text_seen && sequence->value.value("id", "") == "A") {
      text_seen = true;
      continue;
    }
    if (sequence || !token || !specials) {
      return item.Refuse("supported are special tokens around one Sequence A");
    }
    const std::string name = token->value.value("id", "");
    const auto found = specials->value.find(name);
    if (found == specials->value.end() || !found->contains("ids") || !(*found)["ids"].is_array()) {
      return item.Refuse("special_tokens must give the ids of this token");
    }
    for (const Json& id : (*found)["ids"]) {
      FATHOM_ASSIGN_OR_RETURN(const TokenId value, ReadId({id, specials->where + "." + name}));
      (text_seen ? spec->suffix_ids : spec->prefix_ids).push_back(value);
    }
  }
  if (!text_seen) return single->Refuse("expected one Sequence A");
  return absl::OkStatus();
}

absl::Status ReadPostProcessor(const JsonAt& at, bool* template_seen, TokenizerSpec* spec) {
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  FATHOM_ASSIGN_OR_RETURN(const std::string type, fields.String("type"));
  if (type == "Sequence") {
    const std::optional<JsonAt> list = fields.Find("processors");
    if (!list || !list->value.is_array()) return at.Refuse("expected a list `processors`");
    for (size_t i = 0; i < list->value.size(); ++i) {
      FATHOM_RETURN_IF_ERROR(ReadPostProcessor(list->Element(i), template_seen, spec));
    }
  } else if (type == "ByteLevel") {  // It moves offsets only.
    for (const char* key : {"add_prefix_space", "trim_offsets", "use_regex"}) fields.Ignore(key);
  } else if (type == "TemplateProcessing" && !*template_seen) {
    *template_seen = true;
    FATHOM_RETURN_IF_ERROR(ReadTemplate(&fields, spec));
  } else {
    return at.Refuse("supported are ByteLevel, one TemplateProcessing and Sequence");
  }
  return fields.Done();
}

// ---- model ----

absl::StatusOr<Vocab> ReadVocab(const JsonAt& at) {
  if (!at.value.is_object() || at.value.empty()) return at.Refuse("expected an object token: id");
  Vocab vocab;
  vocab.reserve(at.value.size());
  absl::flat_hash_set<TokenId> ids;
  ids.reserve(at.value.size());
  for (const auto& [token, id] : at.value.get_ref<const Json::object_t&>()) {
    if (!id.is_number_unsigned() || id.get<uint64_t>() > kTokenIdMax) {
      return at.Child(token, id).Refuse(fmt::format("expected a token id, 0 to {}", kTokenIdMax));
    }
    if (!ids.insert(id.get<TokenId>()).second) {
      return at.Child(token, id).Refuse("this id belongs to another token");
    }
    vocab.emplace(token, id.get<TokenId>());
  }
  return vocab;
}

// The two tokens of a merge: "a b" or ["a", "b"].
absl::StatusOr<std::pair<std::string_view, std::string_view>> MergeParts(const JsonAt& merges,
                                                                         size_t index) {
  const Json& value = merges.value[index];
  if (value.is_array() && value.size() == 2 && value[0].is_string() && value[1].is_string()) {
    return std::pair<std::string_view, std::string_view>(value[0].get_ref<const std::string&>(),
                                                         value[1].get_ref<const std::string&>());
  }
  if (value.is_string()) {
    const std::string_view text = value.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != text.npos && text.find(' ', space + 1) == text.npos) {
      return std::pair(text.substr(0, space), text.substr(space + 1));
    }
  }
  return merges.Element(index).Refuse(
      "expected two tokens, as a list or with one space between them");
}

absl::Status ReadMerges(const JsonAt& at, const Vocab& vocab, BpeSpec* bpe) {
  if (!at.value.is_array()) return at.Refuse("expected a list of merges");
  bpe->merges.reserve(at.value.size());
  std::string joined;
  for (size_t i = 0; i < at.value.size(); ++i) {
    FATHOM_ASSIGN_OR_RETURN(const auto parts, MergeParts(at, i));
    joined.assign(parts.first).append(parts.second);
    const auto left = vocab.find(parts.first), right = vocab.find(parts.second),
               merged = vocab.find(joined);
    if (left == vocab.end() || right == vocab.end() || merged == vocab.end()) {
      return at.Element(i).Refuse(fmt::format("'{}' is not in model.vocab",
                                              left == vocab.end()    ? std::string(parts.first)
                                              : right == vocab.end() ? std::string(parts.second)
                                                                     : joined));
    }
    bpe->merges.push_back({left->second, right->second, merged->second});
  }
  return absl::OkStatus();
}

// Every byte that can occur in UTF-8 needs a token, so that every text can be encoded.
absl::Status FindByteTokens(const JsonAt& at, const Vocab& vocab, BpeSpec* bpe) {
  for (int byte = 0; byte < 256; ++byte) {
    const auto found = vocab.find(ByteLevelCharacter(static_cast<uint8_t>(byte)));
    bpe->byte_tokens[byte] = found == vocab.end() ? -1 : found->second;
    const bool never = byte == 0xC0 || byte == 0xC1 || byte >= 0xF5;
    if (found == vocab.end() && !never) {
      return Invalid(
          "{} has no token '{}' for byte 0x{:02X}; supported are byte-level vocabularies, and "
          "those "
          "of characters with model.byte_fallback",
          at.where, ByteLevelCharacter(static_cast<uint8_t>(byte)), byte);
    }
  }
  return absl::OkStatus();
}

// Finds the tokens of characters, and "<0xNN>" for each byte, so that every text can be encoded.
absl::Status ReadCharacterTokens(const JsonAt& at, const Vocab& vocab, BpeSpec* bpe) {
  bpe->byte_tokens.fill(-1);
  for (const auto& [spelling, id] : vocab) {
    CharacterToken token = ReadCharacterToken(spelling);
    if (token.is_byte) bpe->byte_tokens[static_cast<uint8_t>(token.bytes[0])] = id;
    // A prepared text contains no token with a plain space in its spelling.
    if (token.is_byte || spelling.find(' ') != std::string::npos) {
      bpe->foreign.insert(id);
    } else if (!token.bytes.empty() && NextCharacter(token.bytes, 0) == token.bytes.size()) {
      bpe->characters.emplace(FirstCodePoint(token.bytes), id);
    }
    bpe->tokens[id] = std::move(token.bytes);
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (bpe->byte_tokens[byte] < 0) {
      return Invalid("{} has no token '<0x{:02X}>'; model.byte_fallback needs all 256 of them",
                     at.where, byte);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadModel(const JsonAt& at, Vocab* vocab, TokenizerSpec* spec) {
  BpeSpec* bpe = &spec->bpe;
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  FATHOM_ASSIGN_OR_RETURN(const std::string type, fields.String("type", "BPE"));
  if (type != "BPE") return at.Child("type", at.value["type"]).Refuse("supported is BPE");
  if (const auto dropout = fields.Find("dropout"); dropout && dropout->value != 0.0) {
    return dropout->Refuse("supported is no dropout (null): the same text gives the same ids");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (const auto affix = fields.Find(key); affix && affix->value != "") {
      return affix->Refuse("supported is none (null or \"\")");
    }
  }
  // The treatment of unknown characters; there are none (FindByteTokens).
  for (const char* key : {"unk_token", "fuse_unk"}) fields.Ignore(key);
  FATHOM_ASSIGN_OR_RETURN(const bool byte_fallback, fields.Bool("byte_fallback", false));
  FATHOM_ASSIGN_OR_RETURN(bpe->ignore_merges, fields.Bool("ignore_merges", false));
  const auto vocab_at = fields.Find("vocab"), merges_at = fields.Find("merges");
  if (!vocab_at || !merges_at) return at.Refuse("expected `vocab` and `merges`");
  FATHOM_RETURN_IF_ERROR(fields.Done());
  FATHOM_ASSIGN_OR_RETURN(*vocab, ReadVocab(*vocab_at));
  // A vocabulary with tokens for all bytes is byte-level, whatever byte_fallback says.
  const absl::Status byte_level = FindByteTokens(*vocab_at, *vocab, bpe);
  if (!byte_level.ok() && !byte_fallback) return byte_level;
  FATHOM_RETURN_IF_ERROR(ReadMerges(*merges_at, *vocab, bpe));
  TokenId last = 0;
  for (const auto& [token, id] : *vocab) last = std::max(last, id);
  bpe->tokens.resize(static_cast<size_t>(last) + 1);
  if (!byte_level.ok()) {
    spec->characters.emplace();
    return ReadCharacterTokens(*vocab_at, *vocab, bpe);
  }
  for (const auto& [token, id] : *vocab) {
    std::optional<std::string> bytes = ByteLevelBytes(token);
    if (!bytes) bpe->foreign.insert(id);
    bpe->tokens[id] = bytes ? *std::move(bytes) : token;
  }
  return absl::OkStatus();
}

// ---- files ----

absl::Status ReadByteLevelSections(const std::optional<JsonAt>& normalizer,
                                   const std::optional<JsonAt>& pre_tokenizer,
                                   const std::optional<JsonAt>& decoder, const JsonAt& file,
                                   TokenizerSpec* spec) {
  if (normalizer) FATHOM_RETURN_IF_ERROR(ReadNormalizer(*normalizer, spec));
  bool encodes = false, decodes = false;
  if (pre_tokenizer) {
    FATHOM_RETURN_IF_ERROR(ReadPreTokenizer(*pre_tokenizer, &encodes, &spec->pre_tokenizer));
  }
  if (!encodes) {
    return Invalid("{}pre_tokenizer has no ByteLevel; it must end with one", file.where);
  }
  if (decoder) FATHOM_RETURN_IF_ERROR(ReadDecoder(*decoder, &decodes));
  if (!decodes) return Invalid("{}decoder has no ByteLevel; it needs one", file.where);
  return absl::OkStatus();
}

absl::Status ReadTokenizerJson(const JsonAt& at, TokenizerSpec* spec) {
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  // Settings of training: a server neither truncates nor pads a text.
  for (const char* key : {"version", "truncation", "padding"}) fields.Ignore(key);
  Vocab vocab;
  const auto model = fields.Find("model");
  if (!model) return Invalid("{}model is missing; expected a BPE model", at.where);
  FATHOM_RETURN_IF_ERROR(ReadModel(*model, &vocab, spec));
  spec->vocab_spellings.resize(spec->bpe.tokens.size());
  for (const auto& [token, id] : vocab) spec->vocab_spellings[id] = token;
  if (const auto added = fields.Find("added_tokens")) {
    FATHOM_ASSIGN_OR_RETURN(spec->added_tokens, ReadAddedTokens(*added, vocab));
  }
  const auto normalizer = fields.Find("normalizer"), pre_tokenizer = fields.Find("pre_tokenizer"),
             decoder = fields.Find("decoder");
  FATHOM_RETURN_IF_ERROR(spec->characters
                             ? ReadCharacterSections(normalizer, pre_tokenizer, decoder, at, spec)
                             : ReadByteLevelSections(normalizer, pre_tokenizer, decoder, at, spec));
  bool template_seen = false;
  if (const auto post_processor = fields.Find("post_processor")) {
    FATHOM_RETURN_IF_ERROR(ReadPostProcessor(*post_processor, &template_seen, spec));
  }
  return fields.Done();
}

}  // namespace

absl::StatusOr<TokenId> ReadId(const JsonAt& at) {
  if (!at.value.is_number_unsigned() || at.value.get<uint64_t>() > kTokenIdMax) {
    return at.Refuse(fmt::format("expected a token id, 0 to {}", kTokenIdMax));
  }
  return at.value.get<TokenId>();
}

absl::StatusOr<AddedToken> ReadAddedToken(const JsonAt& at) {
  FATHOM_ASSIGN_OR_RETURN(JsonFields fields, JsonFields::Open(at));
  AddedToken token;
  const std::optional<JsonAt> id = fields.Find("id");
  if (!id) return at.Refuse("expected an object with an id");
  FATHOM_ASSIGN_OR_RETURN(token.id, ReadId(*id));
  FATHOM_ASSIGN_OR_RETURN(token.content, fields.String("content"));
  FATHOM_ASSIGN_OR_RETURN(token.single_word, fields.Bool("single_word", false));
  FATHOM_ASSIGN_OR_RETURN(token.lstrip, fields.Bool("lstrip", false));
  FATHOM_ASSIGN_OR_RETURN(token.rstrip, fields.Bool("rstrip", false));
  FATHOM_ASSIGN_OR_RETURN(token.special, fields.Bool("special", false));
  FATHOM_ASSIGN_OR_RETURN(token.normalized, fields.Bool("normalized", !token.special));
  FATHOM_RETURN_IF_ERROR(fields.Done());
  if (token.content.empty()) return at.Refuse("an added token needs some content");
  return token;
}

absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(const std::string& folder) {
  TokenizerSpec spec;
  const std::string tokenizer_path = folder + "/tokenizer.json";
  FATHOM_ASSIGN_OR_RETURN(const Json tokenizer, ReadJsonFile(tokenizer_path));
  FATHOM_RETURN_IF_ERROR(ReadTokenizerJson({tokenizer, tokenizer_path + ": "}, &spec));
  const std::string config_path = folder + "/tokenizer_config.json";
  const absl::StatusOr<Json> config = ReadJsonFile(config_path);
  if (config.ok()) {
    FATHOM_RETURN_IF_ERROR(ReadTokenizerConfig({*config, config_path + ": "}, &spec));
  } else if (config.status().code() != absl::StatusCode::kNotFound) {
    return config.status();
  }
  return spec;
}

}  // namespace fathom
