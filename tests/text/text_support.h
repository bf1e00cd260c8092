// tests/text/text_support.h: helpers for the tests of text/: seeds, folders, recorded vectors,
// random text.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/status.h"
#include "text/tokenizer.h"

namespace fathom {

inline uint64_t TestSeed() {
  const char* seed = std::getenv("FATHOM_SEED");
  return seed == nullptr ? 20240613 : std::strtoull(seed, nullptr, 10);
}

using Random = std::mt19937_64;

inline std::filesystem::path SourceDir() { return FATHOM_SOURCE_DIR; }
inline std::filesystem::path TinyModel() { return SourceDir() / "models/fathom-tiny"; }
inline std::filesystem::path TokenizerData() { return SourceDir() / "tests/data/tokenizers"; }
// The folder of published vocabularies beside the project; it may be missing.
inline std::filesystem::path PublishedTokenizers() {
  return SourceDir().parent_path() / "shared/tokenizers";
}

inline std::unique_ptr<Tokenizer> LoadTokenizer(const std::filesystem::path& folder) {
  auto tokenizer = Tokenizer::Load(folder.string());
  FATHOM_CHECK(tokenizer.ok(), "{}", ToString(tokenizer.status()));
  return *std::move(tokenizer);
}

struct Vector {
  std::optional<std::string> text;
  std::vector<TokenId> ids;
  std::vector<TokenId> ids_with_special;
  std::optional<std::string> decoded, decoded_skip;
};

inline std::vector<Vector> ReadVectors(const std::filesystem::path& path) {
  std::ifstream file(path);
  FATHOM_CHECK(file.good(), "cannot read {}", path.string());
  std::vector<Vector> vectors;
  for (std::string line; std::getline(file, line);) {
    const auto json = nlohmann::json::parse(line);
    Vector vector;
    if (json.contains("text")) vector.text = json["text"].get<std::string>();
    vector.ids = json["ids"].get<std::vector<TokenId>>();
    vector.ids_with_special = json.value("ids_with_special", vector.ids);
    if (json.contains("decoded")) vector.decoded = json["decoded"].get<std::string>();
    if (json.contains("decoded_skip"))
      vector.decoded_skip = json["decoded_skip"].get<std::string>();
    vectors.push_back(std::move(vector));
  }
  return vectors;
}

inline void AppendCodePoint(char32_t c, std::string* text) {
  const auto tail = [&](int shift) {
    text->push_back(static_cast<char>(0x80 | ((c >> shift) & 0x3F)));
  };
  if (c < 0x80) {
    text->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    text->push_back(static_cast<char>(0xC0 | (c >> 6)));
    tail(0);
  } else if (c < 0x10000) {
    text->push_back(static_cast<char>(0xE0 | (c >> 12)));
    tail(6);
    tail(0);
  } else {
    text->push_back(static_cast<char>(0xF0 | (c >> 18)));
    tail(12);
    tail(6);
    tail(0);
  }
}

// At most `characters` characters: mostly ASCII, some of all kinds, and parts of `pieces`.
inline std::string RandomText(Random& random, int characters,
                              const std::vector<std::string>& pieces = {}) {
  std::string text;
  for (int left = static_cast<int>(random() % (characters + 1)); left > 0; --left) {
    const uint64_t kind = random() % 10;
    if (kind < 6) {
      text.push_back("abcdefghij ETAOIN  12\n\t.,<>|'"[random() % 29]);
    } else if (kind < 7) {
      AppendCodePoint(0x80 + random() % 0x780, &text);
    } else if (kind < 8) {
      AppendCodePoint(0x4E00 + random() % 0x5000, &text);
    } else if (kind < 9 || pieces.empty()) {
      AppendCodePoint(0x10000 + random() % 0x100000, &text);
    } else {
      text += pieces[random() % pieces.size()];
    }
  }
  return text;
}

inline std::vector<std::string> AddedContents(const Tokenizer& tokenizer) {
  std::vector<std::string> contents;
  for (const AddedToken& token : tokenizer.added_tokens()) contents.push_back(token.content);
  return contents;
}

}  // namespace fathom
