#include "common/flags.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "common/check.h"
#include "common/flag_names.h"
#include "common/output.h"
#include "common/process.h"

namespace fathom {
namespace {

// Returns nullopt, or what is wrong with the value.
using Setter = std::function<std::optional<std::string>(const std::string&)>;

template <class T>
Setter NumberSetter(T* value, T min, T max) {
  return [=](const std::string& text) -> std::optional<std::string> {
    T parsed{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), parsed);
    if (error != std::errc() || end != text.data() + text.size()) {
      return fmt::format("'{}' is not a number; give one from {} to {}", text, min, max);
    }
    if (!(parsed >= min && parsed <= max)) {
      return fmt::format("{} is out of range; give a number from {} to {}", text, min, max);
    }
    *value = parsed;
    return std::nullopt;
  };
}

Setter BoolSetter(bool* value) {
  return [=](const std::string& text) -> std::optional<std::string> {
    if (text == "true" || text == "1" || text == "yes" || text == "on") {
      *value = true;
    } else if (text == "false" || text == "0" || text == "no" || text == "off") {
      *value = false;
    } else {
      return fmt::format("'{}' is neither true nor false", text);
    }
    return std::nullopt;
  };
}

Setter BytesSetter(int64_t* value) {
  return [=](const std::string& text) -> std::optional<std::string> {
    const std::optional<int64_t> bytes = ParseBytes(text);
    if (!bytes)
      return fmt::format("'{}' is not a size; give bytes, or a number with K, M, G or T", text);
    *value = *bytes;
    return std::nullopt;
  };
}

Setter GibibytesSetter(int64_t* value) {
  return [=](const std::string& text) -> std::optional<std::string> {
    const bool unit = !text.empty() && std::isalpha(static_cast<unsigned char>(text.back())) != 0;
    const std::optional<int64_t> bytes = ParseBytes(unit ? text : text + "G");
    if (!bytes) {
      return fmt::format("'{}' is not a size; give GiB, or a number with K, M, G or T", text);
    }
    *value = *bytes;
    return std::nullopt;
  };
}

std::string EnvironmentName(std::string_view canonical) {
  std::string name = "FATHOM_";
  for (char c : canonical.substr(canonical.find_first_not_of('-'))) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  return name;
}

// Whether the value was set by Kubernetes: a pod gets FATHOM_PORT=tcp://10.0.0.1:8001 if its
// namespace has a Service named "fathom".
bool IsServiceLink(std::string_view value) {
  return value.starts_with("tcp://") || value.starts_with("udp://") || value.starts_with("sctp://");
}

std::vector<std::string> SplitNames(const std::string& names) {
  std::vector<std::string> result;
  for (size_t start = 0; start <= names.size();) {
    const size_t comma = std::min(names.find(',', start), names.size());
    result.push_back(names.substr(start, comma - start));
    start = comma + 1;
  }
  return result;
}

}  // namespace

class Flags::Impl {
 public:
  Impl(std::string program, std::string description)
      : program_(std::move(program)), app_(std::move(description), program_) {
    app_.set_version_flag("--version", program_ + " " + BuildVersion(),
                          "Print the version and exit");
    known_["--version"] = known_["--help"] = known_["-h"] = "";
    Add("--config", TextSetter(&config_),
        "YAML file with a key per flag (flag > environment > file)", "");
  }

  struct Entry {
    std::string canonical;  // "--http-port"
    CLI::Option* option = nullptr;
    Setter set;
    bool repeatable = false;
    CLI::Option* off = nullptr;  // The --no-x of a switch.

    bool given() const { return option->count() > 0 || (off != nullptr && off->count() > 0); }
  };

  static Setter TextSetter(std::string* value) {
    return [=](const std::string& text) {
      *value = text;
      return std::optional<std::string>();
    };
  }

  void Add(const std::string& names, Setter set, const std::string& help, const std::string& shown,
           bool repeatable = false) {
    const std::vector<std::string> spellings = SplitNames(names);
    Remember(spellings);
    auto* option = repeatable ? AddMany(spellings[0], set) : AddOne(spellings[0], set);
    option->description(Described(spellings, help, shown))->type_name("");
    if (!group_.empty()) option->group(group_);
    entries_.push_back({spellings[0], option, std::move(set), repeatable});
  }

  void AddSwitch(const std::string& names, bool* value, const std::string& help) {
    const std::vector<std::string> spellings = SplitNames(names);
    Remember(spellings);
    const std::string bare = spellings[0].substr(2);
    known_["--no-" + bare] = "--no-" + bare;
    auto* option =
        app_.add_flag("--" + bare, *value, Described(spellings, help, *value ? "on" : "off"));
    if (!group_.empty()) option->group(group_);
    // --no-x works but is not listed, because the help would be twice as long.
    auto* off = app_.add_flag_callback("--no-" + bare, [value] { *value = false; })->group("");
    entries_.push_back({spellings[0], option, BoolSetter(value), false, off});
  }

  void AddPositional(const std::string& name, std::string* value, bool required,
                     const std::string& help) {
    auto* option = app_.add_option(name, *value, help)->type_name("");
    if (required) option->required();
  }

  std::optional<int> Parse(int argc, const char* const* argv) {
    std::vector<std::string> words;
    for (int i = 1; i < argc; ++i) words.emplace_back(argv[i]);
    if (auto wrong = CanonicalWords(&words)) return Fail(*wrong);
    try {
      std::reverse(words.begin(), words.end());  // CLI11 takes the words from the back.
      app_.parse(words);
    } catch (const CLI::CallForHelp&) {
      WriteAnswer(app_.help());
      return EndAnswer(program_, kExitOk);
    } catch (const CLI::CallForVersion&) {
      PrintAnswer("{} {}\n", program_, BuildVersion());
      return EndAnswer(program_, kExitOk);
    } catch (const CLI::ParseError& error) {
      return Fail(error.what());
    }
    if (auto wrong = ApplyFileAndEnvironment()) return Fail(*wrong);
    return std::nullopt;
  }

  void set_group(std::string title) { group_ = std::move(title); }

 private:
  CLI::Option* AddOne(const std::string& name, const Setter& set) {
    return app_.add_option_function<std::string>(
        name, [this, set, name](const std::string& text) { Apply(name, set, text); });
  }

  CLI::Option* AddMany(const std::string& name, const Setter& set) {
    auto* option = app_.add_option_function<std::vector<std::string>>(
        name, [this, set, name](const std::vector<std::string>& texts) mutable {
          for (const std::string& text : texts) Apply(name, set, text);
        });
    return option->expected(-1);
  }

  // All spellings map to the first one; CLI11 sees only that one.
  void Remember(const std::vector<std::string>& spellings) {
    for (const std::string& spelling : spellings) {
      FATHOM_CHECK(spelling.starts_with("-"), "flag {}", spelling);
      FATHOM_CHECK(known_.emplace(spelling, spellings[0]).second, "flag {} twice", spelling);
    }
  }

  static std::string Described(const std::vector<std::string>& spellings, const std::string& help,
                               const std::string& shown) {
    std::string text = help;
    if (!shown.empty()) text += fmt::format(" [{}]", shown);
    if (spellings.size() > 1) {
      text += fmt::format(" (also {})", fmt::join(spellings.begin() + 1, spellings.end(), ", "));
    }
    return text;
  }

  void Apply(const std::string& name, const Setter& set, const std::string& text) {
    if (auto wrong = set(text)) throw CLI::ValidationError(fmt::format("{}: {}", name, *wrong));
  }

  // Rewrites every flag to its canonical name. Returns what is wrong with a flag, or nullopt.
  std::optional<std::string> CanonicalWords(std::vector<std::string>* words) {
    for (std::string& word : *words) {
      if (word == "--") return std::nullopt;
      if (word.size() < 2 || word[0] != '-' ||
          std::isdigit(static_cast<unsigned char>(word[1])) != 0 || word[1] == '.') {
        continue;
      }
      const size_t equals = std::min(word.find('='), word.size());
      auto found = Resolve(word.substr(0, equals));
      if (!found.ok) return found.text;
      word = found.text + word.substr(equals);
    }
    return std::nullopt;
  }

  struct Resolved {
    bool ok;
    std::string text;  // The canonical name, or the error.
  };

  Resolved Resolve(const std::string& name) const {
    if (auto it = known_.find(name); it != known_.end()) {
      return {true, it->second.empty() ? name : it->second};
    }
    std::string dashed = name;
    for (char& c : dashed) c = c == '_' ? '-' : c;
    if (auto it = known_.find(dashed); it != known_.end() && !it->second.empty())
      return {true, it->second};
    if (const ForeignFlag* foreign = FindForeignFlag(dashed)) {
      const std::string ours = foreign->ours;
      if (!ours.empty() && foreign->exact && known_.contains(ours)) return {true, known_.at(ours)};
      if (ours.empty() || known_.contains(ours)) {
        return {false, fmt::format("unknown flag {}: {}", name, foreign->answer)};
      }
    }
    std::vector<std::string> names;
    for (const auto& [spelling, canonical] : known_) names.push_back(spelling);
    const std::string nearest = NearestName(dashed, names);
    return {false, fmt::format("unknown flag {}{}; see {} --help", name,
                               nearest.empty() ? "" : fmt::format("; did you mean {}?", nearest),
                               program_)};
  }

  std::optional<std::string> ApplyFileAndEnvironment() {
    std::map<std::string, YAML::Node> file;
    if (config_.empty()) config_ = FromEnvironment("--config").value_or("");
    if (!config_.empty()) {
      if (auto wrong = ReadFile(&file)) return wrong;
    }
    for (const Entry& entry : entries_) {
      if (entry.given() || entry.canonical == "--config") continue;
      if (const auto text = FromEnvironment(entry.canonical)) {
        if (auto wrong = entry.set(*text)) {
          return fmt::format("{}: {}", EnvironmentName(entry.canonical), *wrong);
        }
      } else if (auto it = file.find(entry.canonical); it != file.end()) {
        if (auto wrong = ApplyNode(entry, it->second)) return wrong;
      }
    }
    return std::nullopt;
  }

  // The value of a flag in the environment; nullopt: not set.
  std::optional<std::string> FromEnvironment(const std::string& canonical) const {
    const std::string variable = EnvironmentName(canonical);
    const char* text = std::getenv(variable.c_str());
    if (text == nullptr || *text == '\0') return std::nullopt;
    if (!IsServiceLink(text)) return text;
    Diagnose(
        "{}: the environment variable {}={} is ignored: Kubernetes sets variables of this form for "
        "a Service of that name; to set {}, use the flag, and enableServiceLinks: false in the pod "
        "keeps such variables away",
        program_, variable, text, canonical);
    return std::nullopt;
  }

  std::optional<std::string> ApplyNode(const Entry& entry, const YAML::Node& node) const {
    std::vector<std::string> texts;
    if (node.IsSequence() && entry.repeatable) {
      for (const auto& item : node) texts.push_back(item.Scalar());
    } else if (node.IsScalar()) {
      texts.push_back(node.Scalar());
    } else {
      return fmt::format("{}: key '{}' must be a single value", config_, entry.canonical.substr(2));
    }
    for (const std::string& text : texts) {
      if (auto wrong = entry.set(text)) {
        return fmt::format("{}: key '{}': {}", config_, entry.canonical.substr(2), *wrong);
      }
    }
    return std::nullopt;
  }

  std::optional<std::string> ReadFile(std::map<std::string, YAML::Node>* file) const {
    try {
      const YAML::Node root = YAML::LoadFile(config_);
      if (!root.IsMap()) return fmt::format("{}: expected a map of flag names to values", config_);
      for (const auto& pair : root) {
        const auto key = pair.first.as<std::string>();
        const Resolved resolved = Resolve("--" + key);
        if (!resolved.ok) {
          std::string text = resolved.text;  // The same answer, for a key instead of a flag.
          return fmt::format("{}: key '{}': {}", config_, key, text);
        }
        if (!file->emplace(resolved.text, pair.second).second) {
          return fmt::format("{}: key '{}' is given twice", config_, key);
        }
      }
    } catch (const YAML::Exception& error) {
      return fmt::format("{}: {}", config_, error.what());
    }
    return std::nullopt;
  }

  int Fail(const std::string& text) const {
    Diagnose("{}: {}", program_, text);
    return kExitUsage;
  }

  std::string program_;
  CLI::App app_;
  std::string group_;
  std::string config_;
  std::vector<Entry> entries_;
  // Spelling to canonical name; "" for CLI11's own flags.
  std::map<std::string, std::string> known_;
};

Flags::Flags(std::string program, std::string description)
    : impl_(std::make_unique<Impl>(std::move(program), std::move(description))) {}
Flags::~Flags() = default;

void Flags::Group(std::string title) { impl_->set_group(std::move(title)); }

void Flags::Add(const std::string& names, std::string* value, const std::string& help) {
  impl_->Add(names, Impl::TextSetter(value), help, *value);
}
void Flags::Add(const std::string& names, std::optional<std::string>* value,
                const std::string& help) {
  impl_->Add(
      names,
      [=](const std::string& text) {
        *value = text;
        return std::optional<std::string>();
      },
      help, value->value_or(""));
}
void Flags::Add(const std::string& names, std::vector<std::string>* values,
                const std::string& help) {
  // The first given value replaces the default; the others are appended.
  impl_->Add(
      names,
      [values, given = false](const std::string& text) mutable {
        if (!std::exchange(given, true)) values->clear();
        values->push_back(text);
        return std::optional<std::string>();
      },
      help, fmt::format("{}", fmt::join(*values, ", ")), /*repeatable=*/true);
}
void Flags::Add(const std::string& names, bool* value, const std::string& help) {
  impl_->AddSwitch(names, value, help);
}
void Flags::Add(const std::string& names, int32_t* value, int32_t min, int32_t max,
                const std::string& help) {
  impl_->Add(names, NumberSetter(value, min, max), help, std::to_string(*value));
}
void Flags::Add(const std::string& names, int64_t* value, int64_t min, int64_t max,
                const std::string& help) {
  impl_->Add(names, NumberSetter(value, min, max), help, std::to_string(*value));
}
void Flags::Add(const std::string& names, double* value, double min, double max,
                const std::string& help) {
  impl_->Add(names, NumberSetter(value, min, max), help, fmt::format("{}", *value));
}
void Flags::AddChoice(const std::string& names, std::string* value,
                      std::vector<std::string> allowed, const std::string& help) {
  const std::string list = fmt::format("{}", fmt::join(allowed, ", "));
  impl_->Add(
      names,
      [value, allowed = std::move(allowed),
       list](const std::string& text) -> std::optional<std::string> {
        if (std::find(allowed.begin(), allowed.end(), text) == allowed.end()) {
          return fmt::format("'{}' is not one of {}", text, list);
        }
        *value = text;
        return std::nullopt;
      },
      fmt::format("{}: {}", help, list), *value);
}
void Flags::AddBytes(const std::string& names, int64_t* value, const std::string& help) {
  impl_->Add(names, BytesSetter(value), help, *value == 0 ? "auto" : FormatBytes(*value));
}
void Flags::AddGibibytes(const std::string& names, int64_t* value, const std::string& help) {
  impl_->Add(names, GibibytesSetter(value), help, FormatBytes(*value));
}
void Flags::AddPort(const std::string& names, int32_t* value, const std::string& help) {
  impl_->Add(names, NumberSetter(value, 0, 65535), help, std::to_string(*value));
}
void Flags::AddPositional(const std::string& name, std::string* value, bool required,
                          const std::string& help) {
  impl_->AddPositional(name, value, required, help);
}

std::optional<int> Flags::Parse(int argc, const char* const* argv) {
  return impl_->Parse(argc, argv);
}

}  // namespace fathom
