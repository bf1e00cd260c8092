// text/tokenizer_json.h: tokenizer.json and tokenizer_config.json, checked and turned into
// plain data. Every key of tokenizer.json is honoured or refused by name; a refusal is
// INVALID_ARGUMENT and names file, key, value and what is supported. Of tokenizer_config.json only
// what is used here is checked. Pure apart from reading the files.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "text/bpe.h"
#include "text/character_vocabulary.h"
#include "text/pre_tokenizer.h"
#include "text/tokenizer.h"

namespace fathom::router {

struct TokenizerSpec {
  // tokenizer.json
  std::vector<AddedToken> added_tokens;  // Ascending by id; ids and contents distinct.
  bool nfc = false;
  std::optional<CharacterVocabulary> characters;  // Else the vocabulary is byte-level.
  PreTokenizerSpec pre_tokenizer;
  std::vector<std::string> vocab_spellings;  // model.vocab by id; empty: no such token.
  BpeSpec bpe;
  std::vector<TokenId> prefix_ids, suffix_ids;  // The post-processor's special tokens.

  // tokenizer_config.json; its added_tokens_decoder is among added_tokens.
  std::string bos_token, eos_token;
  std::optional<bool> add_bos_token, add_eos_token;
};

absl::StatusOr<TokenizerSpec> ReadTokenizerSpec(const std::string& folder);

}  // namespace fathom::router
