import { render } from "preact";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/controls.css";
import "./styles/frame.css";
import "./styles/models.css";
import "./styles/chat.css";
import "./styles/history.css";
import { startRouter } from "./state/router";
import { applyTheme } from "./state/theme";
import { App } from "./views/App";

applyTheme();
startRouter();
const page = document.getElementById("page");
if (page) render(<App />, page);
