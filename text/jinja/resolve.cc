#include "text/jinja/resolve.h"

#include <fmt/format.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja/builtins.h"

namespace fathom::jinja {
namespace {

std::vector<std::string_view> NamesOf(const Expr& call) {
  std::vector<std::string_view> names;
  for (const auto& [name, expr] : call.named) names.push_back(name);
  return names;
}

// The names that a template defines anywhere. A call of such a name is checked when it is
// evaluated.
struct Defined {
  std::set<std::string, std::less<>> variables;  // Names that are set, looped over, or parameters.
  std::set<std::string, std::less<>> entries;    // Entries of maps and namespaces.
  std::map<std::string, std::vector<const Node*>, std::less<>> macros;
};

// Calls `visit` for the direct children (expressions and nodes).
template <class Visit>
void ForEachExpr(const Node& node, const Visit& visit) {
  if (node.expr != nullptr) visit(*node.expr);
  if (node.filter != nullptr) visit(*node.filter);
  for (const Branch& branch : node.branches) {
    if (branch.condition != nullptr) visit(*branch.condition);
  }
  for (const ExprPtr& value : node.defaults) {
    if (value != nullptr) visit(*value);
  }
}
template <class Visit>
void ForEachExpr(const Expr& expr, const Visit& visit) {
  for (const ExprPtr& arg : expr.args) {
    if (arg != nullptr) visit(*arg);
  }
  for (const auto& [name, arg] : expr.named) visit(*arg);
}
template <class Visit>
void ForEachBlock(const Node& node, const Visit& visit) {
  visit(node.body);
  visit(node.otherwise);
  for (const Branch& branch : node.branches) visit(branch.body);
}

class Collector {
 public:
  explicit Collector(Defined* defined) : defined_(defined) {}

  void Visit(const Block& block) {
    for (const auto& node : block) Visit(*node);
  }

 private:
  void Visit(const Node& node) {
    if (node.kind == NodeKind::kMacro) defined_->macros[node.text].push_back(&node);
    if (node.kind == NodeKind::kSet && !node.text.empty()) {
      defined_->entries.insert(node.text);
    } else {
      defined_->variables.insert(node.targets.begin(), node.targets.end());
    }
    ForEachExpr(node, [&](const Expr& expr) { Visit(expr); });
    ForEachBlock(node, [&](const Block& block) { Visit(block); });
  }

  void Visit(const Expr& expr) {
    for (const auto& [name, arg] : expr.named) defined_->entries.insert(name);
    if (expr.kind == ExprKind::kDict) {
      for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
        const Str* key = expr.args[i]->value.string();
        if (key != nullptr) defined_->entries.insert(key->str());
      }
    }
    ForEachExpr(expr, [&](const Expr& below) { Visit(below); });
  }

  Defined* const defined_;
};

class Resolver {
 public:
  explicit Resolver(const Defined& defined) : defined_(defined) {}

  void Visit(const Block& block) {
    for (const auto& node : block) Visit(*node);
  }

  // Called after all nodes were visited.
  void CheckMacroCalls() const {
    for (const MacroCall& at : calls_) {
      const Node& macro = *at.macro;
      std::string parameters;
      for (size_t i = 0; i < macro.targets.size(); ++i)
        parameters += macro.targets[i] + "? ";  // A missing argument is undefined.
      if (macro.takes_caller) parameters += "caller? ";
      if (macro.takes_varargs) parameters += "* ";
      if (macro.takes_kwargs) parameters += "** ";
      std::vector<std::string_view> named = NamesOf(*at.call);
      if (at.with_caller) named.emplace_back("caller");
      const std::string error =
          CallError({macro.text, parameters}, at.call->args.size() - 1, named);
      if (!error.empty()) Fail(*at.call, fmt::format("the macro '{}' {}", macro.text, error));
    }
  }

 private:
  [[noreturn]] static void Fail(const Expr& at, const std::string& what) {
    throw TemplateError(fmt::format("line {}: {}", at.line, what));
  }

  void Visit(const Node& node) {
    ForEachExpr(node, [&](const Expr& expr) {
      // The call of a `call` block has one more argument, `caller`.
      Visit(expr, node.kind == NodeKind::kCall && &expr == node.expr.get());
    });
    ForEachBlock(node, [&](const Block& block) { Visit(block); });
  }

  void Visit(const Expr& expr, bool with_caller = false) {
    switch (expr.kind) {
      case ExprKind::kFilter:
        Check(expr, "filter", expr.name, FindFilter(expr.name), 1);
        CheckNamed(expr);
        break;
      case ExprKind::kTest:
        Check(expr, "test", expr.name, FindTest(expr.name), 1);
        break;
      case ExprKind::kCall:
        CheckCallee(expr, with_caller);
        break;
      default:
        break;
    }
    ForEachExpr(expr, [&](const Expr& below) { Visit(below); });
  }

  // The first `skipped` arguments of the expression are not arguments of the call.
  static void Check(const Expr& call, std::string_view kind, std::string_view name,
                    const Signature* signature, size_t skipped) {
    if (signature == nullptr)
      Fail(call, fmt::format("the {} '{}' is not supported in chat templates", kind, name));
    const std::string error = CallError(*signature, call.args.size() - skipped, NamesOf(call));
    if (!error.empty()) Fail(call, fmt::format("the {} '{}' {}", kind, name, error));
  }

  // Checks filters that take the name of a filter or test: `map('upper')`, `select('odd')`.
  static void CheckNamed(const Expr& filter) {
    const bool by_attribute = filter.name == "selectattr" || filter.name == "rejectattr";
    const bool selects = by_attribute || filter.name == "select" || filter.name == "reject";
    if (!selects && filter.name != "map") return;
    const size_t at = by_attribute ? 2 : 1;
    if (filter.args.size() <= at) return;
    const Str* name =
        filter.args[at]->kind == ExprKind::kLiteral ? filter.args[at]->value.string() : nullptr;
    if (name == nullptr) return;
    const Signature* signature = selects ? FindTest(name->view()) : FindFilter(name->view());
    Check(filter, selects ? "test" : "filter", name->view(), signature, at + 1);
  }

  void CheckCallee(const Expr& call, bool with_caller) {
    const Expr& callee = *call.args[0];
    if (callee.kind == ExprKind::kAttribute) return CheckMethod(call, callee.name);
    if (callee.kind != ExprKind::kName) return;
    const std::string& name = callee.name;
    if (name == "caller" || defined_.variables.contains(name)) return;
    if (const auto macros = defined_.macros.find(name); macros != defined_.macros.end()) {
      if (macros->second.size() == 1) calls_.push_back({&call, macros->second[0], with_caller});
      return;
    }
    Check(call, "function", name, FindFunction(name), 1);
  }

  void CheckMethod(const Expr& call, const std::string& name) {
    if (defined_.entries.contains(name)) return;
    const std::vector<const Signature*> signatures = FindMethods(name);
    if (signatures.empty() && ChangesItsObject(name)) {
      Fail(call, fmt::format("the method '{}' would change its object, which chat templates may "
                             "not; make a new value",
                             name));
    }
    if (signatures.empty()) Check(call, "method", name, nullptr, 1);
    for (const Signature* signature : signatures) {
      if (CallError(*signature, call.args.size() - 1, NamesOf(call)).empty()) return;
    }
    Check(call, "method", name, signatures.front(), 1);
  }

  struct MacroCall {
    const Expr* call;
    const Node* macro;
    bool with_caller;
  };

  const Defined& defined_;
  std::vector<MacroCall> calls_;
};

}  // namespace

void Resolve(const Block& block) {
  Defined defined;
  Collector(&defined).Visit(block);
  Resolver resolver(defined);
  resolver.Visit(block);
  resolver.CheckMacroCalls();
}

}  // namespace fathom::jinja
