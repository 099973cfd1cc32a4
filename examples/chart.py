from pandastack import Sandbox
user_code = '''
import pandas as pd
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
df = pd.DataFrame({"city": ["NYC", "SF", "LA"], "pop_m": [8.3, 0.87, 3.9]})
df.sort_values("pop_m").plot.bar(x="city", y="pop_m", legend=False)
plt.savefig("/workspace/chart.png", dpi=120, bbox_inches="tight")
print("rows:", len(df))
'''
with Sandbox.create(template="code-interpreter", ttl_seconds=300) as sbx:
    sbx.filesystem.write("/workspace/cell.py", user_code)
    result = sbx.exec("python3 /workspace/cell.py", timeout_seconds=60)
    assert result.exit_code == 0, result.stderr
    png = sbx.filesystem.read("/workspace/chart.png")
    with open("chart.png", "wb") as f:
        f.write(png)
    print(f"pulled {len(png)} bytes")
