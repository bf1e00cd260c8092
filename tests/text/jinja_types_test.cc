// No template and no value ends the process: each filter, test, method and operator gets values of
// every type for every operand and argument. Unsupported combinations give an error. Other tests
// show that results equal Python's.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/text/text_support.h"
#include "text/jinja/builtins.h"
#include "text/jinja/eval.h"
#include "text/jinja/parser.h"

namespace fathom::jinja {
namespace {

constexpr const char* kValues[] = {
    "nothing",
    "none",
    "true",
    "false",
    "0",
    "1",
    "-3",
    "9223372036854775807",
    "(-9223372036854775807 - 1)",
    "1.5",
    "-0.0",
    "(1e308 * 10)",
    "(1e308 * 10 * 0)",
    "''",
    "'a'",
    "' äb,🚀c '",
    "user",
    "[]",
    "[1, 'a', none]",
    "[[1, 2], ['x', 'y']]",
    "{}",
    "{'a': 1, 'b': [user]}",
    "namespace(a=1)",
    "'x'.strip",
    "range",
};

// Renders; an error of the template is accepted too.
void Render(const std::string& source) {
  static const Variables kVariables = {{"user", Value(Str::Literal("use<r>"))}};
  try {
    const Str text = jinja::Render(Parse(source), kVariables, 0, {});
    size_t done = 0;
    for (const ByteSpan& span : text.LiteralSpans()) {
      ASSERT_LE(done, span.begin) << source;
      ASSERT_LT(span.begin, span.end) << source;
      ASSERT_LE(span.end, text.size()) << source;
      done = span.end;
    }
  } catch (const TemplateError& error) {
    ASSERT_STRNE(error.what(), "") << source;
  }
}

std::string Any(Random& random) { return kValues[random() % std::size(kValues)]; }

// Random arguments, some of them by name.
std::string Arguments(Random& random, size_t count) {
  constexpr const char* kNames[] = {"attribute", "default", "boolean", "count", "width",
                                    "first",     "indent",  "sep",     "chars", "maxsplit"};
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    if (i > 0) text += ", ";
    if (i + 1 == count && random() % 4 == 0) text += std::string(kNames[random() % 10]) + "=";
    text += Any(random);
  }
  return text;
}

class Types : public ::testing::Test {
 protected:
  Types() { RecordProperty("FATHOM_SEED", std::to_string(TestSeed())); }

  // Calls `make(value, arguments)` without an argument, with each single one, and with some lists
  // of two and three.
  template <class Make>
  void ForAllArguments(const Make& make) {
    for (const char* value : kValues) {
      Render(make(value, ""));
      for (const char* argument : kValues) Render(make(value, argument));
      for (int i = 0; i < 8; ++i) Render(make(value, Arguments(random_, 2 + random_() % 2)));
    }
  }

  Random random_{TestSeed()};
};

TEST_F(Types, Filters) {
  for (const std::string_view name : FilterNames()) {
    ForAllArguments([&](const std::string& value, const std::string& arguments) {
      return fmt::format("{{{{ {} | {}({}) }}}}", value, name, arguments);
    });
    // In the form in which filters apply filters and tests by name.
    for (const char* value : kValues) {
      Render(fmt::format("{{{{ [{}] | map('{}', {}) | list }}}}", value, name, Any(random_)));
    }
  }
}

TEST_F(Types, Tests) {
  for (const std::string_view name : TestNames()) {
    const bool word = name.front() >= 'a';
    ForAllArguments([&](const std::string& value, const std::string& arguments) {
      return word ? fmt::format("{{{{ {} is {}({}) }}}}", value, name, arguments)
                  : fmt::format("{{{{ [{}] | select('{}'{}{}) | list }}}}", value, name,
                                arguments.empty() ? "" : ", ", arguments);
    });
    for (const char* value : kValues) {
      Render(fmt::format("{{{{ [{}, {{'a': {}}}] | selectattr('a', '{}', {}) | list }}}}", value,
                         value, name, Any(random_)));
    }
  }
}

TEST_F(Types, Methods) {
  for (const std::string_view name : MethodNames()) {
    ForAllArguments([&](const std::string& value, const std::string& arguments) {
      return fmt::format("{{{{ {}.{}({}) }}}}", value, name, arguments);
    });
  }
}

TEST_F(Types, Functions) {
  for (const char* name :
       {"namespace", "range", "raise_exception", "strftime_now", "dict", "nothing", "user", "m"}) {
    for (size_t count = 0; count < 4; ++count) {
      for (int i = 0; i < 60; ++i) {
        Render(
            fmt::format("{{% macro m(a, b={}) %}}{{{{ a }}}}{{{{ b }}}}{{% endmacro %}}"
                        "{{{{ {}({}) }}}}",
                        Any(random_), name, Arguments(random_, count)));
      }
    }
  }
}

TEST_F(Types, Operators) {
  for (const char* op : {"+", "-", "*", "/", "//", "%", "**", "~", "and", "or", "==", "!=", "<",
                         "<=", ">", ">=", "in", "not in"}) {
    for (const char* left : kValues) {
      for (const char* right : kValues) {
        Render(fmt::format("{{{{ {} {} {} }}}}", left, op, right));
      }
    }
  }
  for (const char* value : kValues) {
    Render(fmt::format("{{{{ -{} }}}}{{{{ not {} }}}}", value, value));
    Render(fmt::format("{{{{ +{} }}}}{{{{ 1 if {} else 2 }}}}", value, value));
  }
}

TEST_F(Types, ItemsSlicesAndStatements) {
  for (const char* value : kValues) {
    for (const char* key : kValues) {
      Render(fmt::format("{{{{ {}[{}] }}}}", value, key));
      Render(fmt::format("{{{{ {{{}: 1}}[{}] }}}}", key, value));
      Render(fmt::format("{{% set a, b = {} %}}{{{{ a }}}}{{{{ {} }}}}", value, key));
      for (int i = 0; i < 4; ++i) {
        Render(fmt::format("{{{{ {}[{}:{}:{}] }}}}", value, key, Any(random_), Any(random_)));
      }
    }
    Render(fmt::format("{{{{ {}.a }}}}{{{{ {}.b.c }}}}", value, value));
    Render(
        fmt::format("{{% for x in {} %}}{{{{ x }}}}{{{{ loop.nextitem }}}}{{% endfor %}}", value));
    Render(fmt::format("{{% for x, y in {} if x %}}{{{{ x }}}}{{% else %}}-{{% endfor %}}", value));
    Render(fmt::format("{{% set x = {} %}}{{% set x.a = 1 %}}{{{{ x.a }}}}", value));
    Render(fmt::format("{{{{ {} }}}}{{{{ {} | tojson }}}}", value, value));
  }
}

// A value that contains itself, or nests without end, gives an error and leaves no memory behind.
TEST_F(Types, NestingHasAnEnd) {
  for (const char* deeper : {"[ns.x]", "{'a': ns.x}", "{'a': ns.x}.items", "[[ns.x], ns]",
                             "namespace(x=ns.x)", "[ns]", "ns"}) {
    for (const char* use : {"{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x == ns.x }}", ""}) {
      Render(
          fmt::format("{{% set ns = namespace(x=1) %}}{{% for i in range(2000) %}}"
                      "{{% set ns.x = {} %}}{{% endfor %}}{}",
                      deeper, use));
    }
  }
  for (const char* link : {".a", "[0]", " | list", " + 1", " ~ 'a'", " or 1", " and 1", " * 2",
                           " if 1", " is none", "()", " ** 2", " == 1"}) {
    std::string source = "{{ x";
    for (int i = 0; i < 20'000; ++i) source += link;
    Render(source + " }}");
  }
  std::string names;
  for (int i = 0; i < 20'000; ++i) names += ", 'map'";
  Render("{{ 'a' | map('map'" + names + ") | list }}");
}

}  // namespace
}  // namespace fathom::jinja
