// tokenizer.json and tokenizer_config.json: a tokenizer that loads can encode any text; decoding
// gives the text again unless the tokenizer changes or drops characters.
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "common/check.h"
#include "tests/fuzz/fuzz.h"
#include "text/tokenizer.h"
#include "text/tokenizer_json.h"

namespace fathom {
namespace {

// In a memory file system if there is one, because the files are written for each input.
std::filesystem::path Folder() {
  static const auto* const kFolder = [] {  // Not destroyed before the code that runs at exit.
    const std::filesystem::path shm = "/dev/shm";
    std::error_code error;
    auto folder =
        (std::filesystem::is_directory(shm, error) ? shm : std::filesystem::temp_directory_path()) /
        ("fathom-fuzz-" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    std::atexit([] { std::filesystem::remove_all(Folder()); });
    return new std::filesystem::path(folder);
  }();
  return *kFolder;
}

void Write(const char* name, std::string_view text) {
  std::ofstream(Folder() / name, std::ios::binary | std::ios::trunc) << text;
}

void FuzzTokenizer(std::string_view input) {
  const size_t cut = std::min(input.find('\0'), input.size());
  Write("tokenizer.json", input.substr(0, cut));
  Write("tokenizer_config.json", input.substr(std::min(cut + 1, input.size())));
  const auto tokenizer = Tokenizer::Load(Folder().string());
  if (!tokenizer.ok()) return;
  for (const std::string_view text :
       {"", "ab ba  abab\n<x> \xC3\xA9 e\xCC\x81 \xE4\xB8\xAD\xF0\x9F\x98\x80 12 <s>a</s>"}) {
    const auto ids = (*tokenizer)->Encode(text, {.add_special_tokens = true});
    if (!ids.ok()) continue;  // A pattern backtracked too much.
    FATHOM_CHECK((*tokenizer)->MinTokens(text) <= static_cast<int64_t>(ids->size()));
    for (const TokenId id : *ids) FATHOM_CHECK(id >= 0 && id < (*tokenizer)->vocab_size());
    FATHOM_CHECK((*tokenizer)->Decode(*ids, true).ok() && (*tokenizer)->Decode(*ids, false).ok());
  }
}

std::string Seed(bool nfc) {
  nlohmann::json vocab;
  // Every byte's character, as byte-level vocabularies have them.
  int other = 0x100;
  int id = 0;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    const int c = printable ? byte : other++;
    std::string text;
    if (c < 0x80) {
      text = static_cast<char>(c);
    } else {
      text = {static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 0x3F))};
    }
    vocab[text] = id++;
  }
  vocab["ab"] = id++;
  vocab["aba"] = id++;
  nlohmann::json json = {
      {"added_tokens", {{{"id", id}, {"content", "<x>"}, {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab a"}}}}};
  if (nfc) json["normalizer"] = {{"type", "NFC"}};
  return json.dump() + std::string(1, '\0') +
         R"({"bos_token":"<x>","add_bos_token":true,
             "added_tokens_decoder":{"300":{"content":"<s>"}}})";
}

}  // namespace
}  // namespace fathom

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fathom::FuzzTokenizer({reinterpret_cast<const char*>(data), size});
  return 0;
}

std::vector<std::string> FuzzSeeds() { return {fathom::Seed(false), fathom::Seed(true)}; }
