// common/flags.h: the configuration of every process: flag > environment > file > default. A flag
// --http-port is also the environment variable FATHOM_HTTP_PORT and the key http-port of the YAML
// file given by --config. An empty variable counts as unset. A variable whose value is a service
// link of Kubernetes ("tcp://10.0.0.1:80") is ignored with one line on stderr. An unknown flag or
// key is an error that names the most similar one (exit 64); for known flags of other engines the
// message names the right flag. Thread: main uses it before any other thread exists.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/exit_codes.h"

namespace fathom {

class Flags {
 public:
  // `program` is the name in --help and --version, e.g. "fathom-router" or "fathom serve".
  Flags(std::string program, std::string description);
  ~Flags();

  // Flags added after this are listed under `title` in --help.
  void Group(std::string title);

  // For all Add functions: `names` are the spellings, separated by commas, with the canonical one
  // first: "--tensor-parallel-size,-tp". --help shows the value before Parse as the default.
  void Add(const std::string& names, std::string* value, const std::string& help);
  void Add(const std::string& names, std::optional<std::string>* value, const std::string& help);
  void Add(const std::string& names, std::vector<std::string>* values,
           const std::string& help);  // Repeatable.
  void Add(const std::string& names, bool* value,
           const std::string& help);  // --x, --x=false, --no-x.
  void Add(const std::string& names, int32_t* value, int32_t min, int32_t max,
           const std::string& help);
  void Add(const std::string& names, int64_t* value, int64_t min, int64_t max,
           const std::string& help);
  void Add(const std::string& names, double* value, double min, double max,
           const std::string& help);
  // Accepts only the values in `allowed`.
  void AddChoice(const std::string& names, std::string* value, std::vector<std::string> allowed,
                 const std::string& help);
  // Bytes: "16G", "512MiB", "1000000"; K, M, G, T are powers of 1024.
  void AddBytes(const std::string& names, int64_t* value, const std::string& help);
  // The same, but a number without a unit is in GiB: "4", "0.5", "512M".
  void AddGibibytes(const std::string& names, int64_t* value, const std::string& help);
  // A port: 0 (any free one) to 65535.
  void AddPort(const std::string& names, int32_t* value, const std::string& help);
  // A word without dashes. Parse fails if a required one is missing.
  void AddPositional(const std::string& name, std::string* value, bool required,
                     const std::string& help);

  // Parses the arguments; argv[0] is skipped. On --help, --version or an error it prints the text
  // and returns the exit code. nullopt: the program continues.
  std::optional<int> Parse(int argc, const char* const* argv);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fathom
