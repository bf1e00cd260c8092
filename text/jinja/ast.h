// text/jinja/ast.h: a parsed template. Nodes do not change after parsing and are shared between
// threads.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/value.h"

namespace fathom::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

enum class ExprKind {
  kLiteral,    // value
  kName,       // name
  kList,       // args
  kTuple,      // args
  kDict,       // args: key, value, key, value...
  kAttribute,  // args[0] . name (also as `value`)
  kSubscript,  // args[0] [ args[1] ]
  kSlice,      // args[0] [ args[1] : args[2] : args[3] ]; absent ones are null
  kCall,       // args[0] ( args[1...], named... )
  kFilter,     // args[0] | name ( args[1...], named... )
  kTest,       // args[0] is name ( args[1...] ); negated by `negate`
  kUnary,      // name: "-", "+", "not"
  kBinary,     // name: + - * / // % ** ~ and or
  kCompare,    // args[0] ops[0] args[1] ops[1] args[2]...
  kIf,         // args[0] if args[1] else args[2] (may be null)
  kCaptured,   // The rendered body that the enclosing statement captured.
};

struct Expr {
  ExprKind kind = ExprKind::kLiteral;
  int line = 0;
  std::string name;
  Value value;
  std::vector<ExprPtr> args;
  std::vector<std::pair<std::string, ExprPtr>> named;
  std::vector<std::string> ops;
  bool negate = false;
  int height = 1;  // The height of the tree, this node included.
};

struct Node;
using Block = std::vector<std::unique_ptr<const Node>>;

enum class NodeKind {
  kText,    // text
  kOutput,  // expr
  kIf,      // branches: condition (null for else) and body
  kFor,     // targets in expr [if filter]: body, otherwise
  kSet,     // targets = expr, or targets.attribute = expr; `captures`: the body comes first
  kWith,    // targets with their values in `defaults`: body, with a scope of its own
  kFilter,  // expr, which has a captured body in it
  kMacro,   // name(targets with defaults): body
  kCall,    // expr, a call, whose caller is name(targets with defaults): body
  kBreak,
  kContinue,
};

struct Branch {
  ExprPtr condition;
  Block body;
};

struct Node {
  NodeKind kind = NodeKind::kText;
  int line = 0;
  std::string text;  // Literal text; a macro's name; the attribute of `set ns.attribute`.
  std::vector<std::string> targets;  // Names assigned; a macro's parameters.
  ExprPtr expr;
  ExprPtr filter;
  std::vector<Branch> branches;
  std::vector<ExprPtr> defaults;  // A macro's, by parameter; null: none.
  Block body, otherwise;
  bool captures = false;
  // Whether the body of a macro uses these names, which get the arguments that no parameter takes.
  bool takes_loop = false;  // Whether the body of a loop uses `loop`.
  bool takes_varargs = false, takes_kwargs = false, takes_caller = false;
};

}  // namespace fathom::jinja
