// tokenizer_bench MODEL_FOLDER [TEXT_FILE...]: prints the megabytes per second of Encode on one
// thread, and the time to load. Without a file it uses this project's own docs (English and some
// code). The best of several passes counts, so that other load on the machine matters little.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "tests/text/text_support.h"

namespace fathom {
namespace {

constexpr size_t kPassBytes = 8 << 20;
constexpr int kPasses = 5;

double Seconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - since).count();
}

std::string ReadAll(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  FATHOM_CHECK(file.good(), "cannot read {}", path.string());
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

std::string OwnPages() {
  std::string text;
  for (const char* folder : {".", "docs", "models", "proto"}) {
    for (const auto& entry : std::filesystem::directory_iterator(SourceDir() / folder)) {
      const auto extension = entry.path().extension();
      if (extension == ".md" || extension == ".proto") text += ReadAll(entry.path());
    }
  }
  return text;
}

void Run(int argc, char** argv) {
  const auto load_begin = std::chrono::steady_clock::now();
  const auto tokenizer = LoadTokenizer(argc > 1 ? argv[1] : TinyModel());
  const double load_s = Seconds(load_begin);
  std::string text;
  for (int i = 2; i < argc; ++i) text += ReadAll(argv[i]);
  if (text.empty()) text = OwnPages();
  const int repeats = static_cast<int>(kPassBytes / text.size()) + 1;
  double best_s = 1e9;
  size_t tokens = 0;
  for (int pass = 0; pass < kPasses; ++pass) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < repeats; ++i) tokens = tokenizer->Encode(text).value().size();
    best_s = std::min(best_s, Seconds(begin));
  }
  const double mb = static_cast<double>(text.size()) * repeats / 1e6;
  std::printf("load %.3f s, encode %.1f MB/s (%.2f bytes a token, text of %.3f MB)\n", load_s,
              mb / best_s, static_cast<double>(text.size()) / static_cast<double>(tokens),
              static_cast<double>(text.size()) / 1e6);
}

}  // namespace
}  // namespace fathom

int main(int argc, char** argv) { fathom::Run(argc, argv); }
